import type { DescService } from "@bufbuild/protobuf";
import { type Client, createClient, type Interceptor, type Transport } from "@connectrpc/connect";
import { createGrpcTransport } from "@connectrpc/connect-node";
import type { Command } from "commander";
import { readState } from "./state.ts";
import { UsageError, type World } from "./world.ts";

/** The options every command that talks to a server has, where the user gave them. */
export type ConnectionOptions = {
  server?: string;
  apiKey?: string;
  tenant?: string;
};

/** Where to connect, as whom, and for which user when none is named. */
export type Connection = {
  client<S extends DescService>(service: S): Client<S>;
  /** host:port, as printed. */
  server: string;
  defaultUser: string | undefined;
};

const DEFAULT_SERVER = "127.0.0.1:50051";

/**
 * Takes each of server and credential from the options, else the environment, else what `npm start` wrote down. Written
 * credentials go only to the server they belong to.
 *
 * @param as whose credential: an API key's, or the operator's, which may name a tenant. `--tenant` means the operator.
 * @throws {UsageError} without any credential.
 */
export function connect(world: World, options: ConnectionOptions, as: "key" | "operator" = "key"): Connection {
  const local = readState(world.dataDir);
  const server = serverOf(world, options.server);
  const ours = local !== undefined && hostAndPort(local.server) === hostAndPort(server) ? local : undefined;
  const asOperator = as === "operator" || options.tenant !== undefined;
  const credential =
    options.apiKey ??
    (asOperator
      ? set(world, "POSTHORN_OPERATOR_KEY") ||
        set(world, "POSTHORN_OPERATOR_KEYS").split(",")[0]?.trim() ||
        ours?.operatorKey
      : set(world, "POSTHORN_API_KEY") || ours?.apiKey);
  if (credential === undefined || credential === "") throw missing(server, asOperator);

  const transport = transportTo(server, credential, options.tenant);
  return {
    client: (service) => createClient(service, transport),
    server: hostAndPort(server),
    defaultUser: credential === ours?.apiKey ? ours.userId : undefined,
  };
}

/** gRPC to a server, with a credential on every call; `tenant` only for the operator. */
export function transportTo(server: string, credential: string, tenant?: string): Transport {
  const headers: Interceptor = (next) => (request) => {
    request.header.set("authorization", `Bearer ${credential}`);
    if (tenant !== undefined) request.header.set("posthorn-tenant", tenant);
    return next(request);
  };
  return createGrpcTransport({
    baseUrl: baseUrl(server),
    interceptors: [headers],
    readMaxBytes: 64 * 2 ** 20,
    pingIntervalMs: 20_000,
  });
}

/** host:port a command line with this --server would connect to; as given when it is no address. */
export function hostOf(world: World, option: string | undefined): string {
  const server = serverOf(world, option);
  try {
    return hostAndPort(server);
  } catch {
    return server;
  }
}

function serverOf(world: World, option: string | undefined): string {
  return option ?? (set(world, "POSTHORN_SERVER") || (readState(world.dataDir)?.server ?? DEFAULT_SERVER));
}

/** The options of a command and of the program above it. */
export function optionsOf<T extends object>(command: Command): T & ConnectionOptions & { json?: boolean } {
  return command.optsWithGlobals();
}

/** The user named, else the one `npm start` made; with a user token none is needed. */
export function userOf(connection: Connection, user: string | undefined): string {
  return user ?? connection.defaultUser ?? "";
}

function set(world: World, name: string): string {
  return world.env[name]?.trim() ?? "";
}

function missing(server: string, operator: boolean): UsageError {
  return operator
    ? new UsageError(`No operator key for ${hostAndPort(server)}.`, "Set POSTHORN_OPERATOR_KEY, or give --api-key.")
    : new UsageError(
        `No API key for ${hostAndPort(server)}.`,
        "Give --api-key, set POSTHORN_API_KEY, or run `npm start` in this checkout, which makes one.",
      );
}

/** Plain text unless https:// is written; without a port the usual one. */
function baseUrl(server: string): string {
  const url = new URL(/^https?:\/\//.test(server) ? server : `http://${server}`);
  if (url.port === "" && !/:\d+\/?$/.test(server)) url.port = url.protocol === "https:" ? "443" : "50051";
  return url.origin;
}

function hostAndPort(server: string): string {
  try {
    const url = new URL(baseUrl(server));
    return `${url.hostname}:${url.port || (url.protocol === "https:" ? "443" : "80")}`;
  } catch {
    throw new UsageError(`--server: "${server}" is not an address.`, "Write host:port, or https://host:port for TLS.");
  }
}
