import { randomBytes } from "node:crypto";
import { join } from "node:path";
import { connect } from "nats";
import { ingestStream, LANES } from "#src/pipeline/flow.ts";
import { type Child, nodeChild } from "./child.ts";
import type { Lab } from "./lab.ts";
import type { Command } from "./server.ts";

export type Tenant = { readonly tenantId: string; readonly apiKey: string };

/** Posthorn in a process of its own, with a tenant. */
export type Server = Tenant &
  AsyncDisposable & {
    readonly child: Child;
    /** Decides and delivers, where that is a process of its own. */
    readonly worker?: Child;
    readonly address: string;
    /** `http://host:port`, where its metrics are. */
    readonly httpUrl: string;
    /** Another tenant. */
    tenant(): Promise<Tenant>;
    /** Begins deciding in the same process, in one that was started without the role worker. */
    work(): Promise<void>;
    /** Ends what `work` began. */
    rest(): Promise<void>;
    /** Collects garbage, so that its memory says what it holds and not what it has let go. */
    settle(): Promise<void>;
  };

/** Nothing is held back, so that the program is measured and not its limits; all else is as in development. */
const UNLIMITED = {
  POSTHORN_API_KEY_REQUESTS_PER_SECOND: "0",
  POSTHORN_API_TENANT_REQUESTS_PER_SECOND: "0",
  POSTHORN_USER_MAX_PER_MINUTE: "1000000",
  POSTHORN_USER_MAX_PER_HOUR: "1000000",
  POSTHORN_USER_MAX_PER_DAY: "1000000",
  POSTHORN_USER_BURST: "1000000",
  POSTHORN_TENANT_MAX_PER_MINUTE: "0",
  // All devices are at one address here.
  POSTHORN_GRPC_MAX_CONNECTIONS_PER_ADDRESS: "60000",
};

export function newNamespace(): string {
  return `bench${randomBytes(4).toString("hex")}`;
}

/**
 * Starts the platform, with all its roles unless told. Settings of the environment go over ours, to try them out. Its
 * queues go with it, because each reserves a gigabyte, unless a namespace was given, for another process to work on.
 */
export async function startServer(lab: Lab, settings: Record<string, string> = {}, name = "server"): Promise<Server> {
  const { services, say, signal } = lab;
  const { POSTHORN_NAMESPACE = newNamespace() } = settings;
  const given = Object.entries(process.env).filter(([name]) => name.startsWith("POSTHORN_"));
  const { PATH, HOME, TMPDIR, NODE_OPTIONS } = process.env;
  const child = nodeChild(join(import.meta.dirname, "server.ts"), {
    name,
    env: {
      PATH,
      HOME,
      ...(TMPDIR === undefined ? {} : { TMPDIR }),
      ...(NODE_OPTIONS === undefined ? {} : { NODE_OPTIONS }),
      POSTHORN_ENV: "development",
      POSTHORN_LOG_LEVEL: "warn",
      POSTHORN_GRPC_PORT: "0",
      POSTHORN_HTTP_PORT: "0",
      POSTHORN_NAMESPACE,
      POSTHORN_STREAM_DRAIN_MS: "0",
      POSTHORN_SHUTDOWN_DRAIN_MS: "1000",
      ...UNLIMITED,
      ...settings,
      ...Object.fromEntries(given),
      POSTHORN_DATABASE_URL: services.databaseUrl,
      POSTHORN_NATS_URL: services.natsUrl,
      POSTHORN_REDIS_URL: services.redisUrl,
    },
    say,
    signal,
  });
  const done = async (command: Command["do"]) => {
    child.send({ do: command } satisfies { do: string });
    return await child.next(command);
  };
  const tenantOf = ({ tenantId, apiKey }: Record<string, unknown>): Tenant => ({
    tenantId: String(tenantId),
    apiKey: String(apiKey),
  });
  try {
    child.send({});
    const ready = await child.next("ready");
    return {
      ...tenantOf(ready),
      child,
      address: String(ready.grpcUrl),
      httpUrl: String(ready.httpUrl),
      tenant: async () => tenantOf(await done("tenant")),
      work: async () => void (await done("work")),
      rest: async () => void (await done("rest")),
      settle: async () => void (await done("settle")),
      async [Symbol.asyncDispose]() {
        await child[Symbol.asyncDispose]();
        if (settings.POSTHORN_NAMESPACE === undefined) await removeQueues(services.natsUrl, POSTHORN_NAMESPACE);
      },
    };
  } catch (error) {
    await child[Symbol.asyncDispose]();
    throw error;
  }
}

/**
 * Starts the platform in two processes, as one would run it on two cores: one answers callers and holds the streams, the
 * other decides.
 */
export async function startTwo(lab: Lab, settings: Record<string, string> = {}): Promise<Server> {
  const POSTHORN_NAMESPACE = newNamespace();
  await using stack = new AsyncDisposableStack();
  stack.defer(() => removeQueues(lab.services.natsUrl, POSTHORN_NAMESPACE));
  const front = { ...settings, POSTHORN_NAMESPACE, POSTHORN_ROLES: "api,stream,scheduler" };
  const server = stack.use(await startServer(lab, front));
  const back = { ...settings, POSTHORN_NAMESPACE, POSTHORN_ROLES: "worker" };
  const worker = stack.use(await startServer(lab, back, "worker"));
  const both = stack.move();
  return { ...server, worker: worker.child, [Symbol.asyncDispose]: () => both.disposeAsync() };
}

/** Those that are gone already, or with their server, are no trouble. */
export async function removeQueues(natsUrl: string, namespace: string): Promise<void> {
  const connection = await connect({ servers: natsUrl, maxReconnectAttempts: 0 }).catch(() => undefined);
  if (connection === undefined) return;
  const manager = await connection.jetstreamManager();
  for (const { name } of LANES) await manager.streams.delete(ingestStream(namespace, name)).catch(() => undefined);
  await connection.close();
}
