// `npm start`: the platform on local services, ready to be used by the next command typed.
import { createServer } from "node:net";
import { createClient } from "@connectrpc/connect";
import { AdminService } from "#gen/posthorn/v1/admin_service_pb.ts";
import { UserService } from "#gen/posthorn/v1/user_service_pb.ts";
import type { Variables } from "#src/config/read.ts";
import { type Config, readConfig } from "#src/config.ts";
import { claimPort } from "#src/dev/ports.ts";
import { startServices } from "#src/dev/services.ts";
import { type Platform, startPlatform } from "#src/main.ts";
import { createLogger } from "#src/telemetry/logger.ts";
import { aborted } from "./commands/serve.ts";
import { transportTo } from "./connection.ts";
import { columns, painter } from "./print.ts";
import { type LocalState, readState, stateFile, writeState } from "./state.ts";
import type { World } from "./world.ts";

const USER = "ada";
/** As long as a token may be good: a day's work. */
const TOKEN_SECONDS = 86_400n;

/** Serves until `world.signal` aborts. */
export async function serveDevelopment(world: World, env: Variables, json: boolean): Promise<void> {
  const say = json ? world.err : world.out;
  const configured = readConfig(env);
  const earlier = readState(world.dataDir);
  // A second server in this checkout has a database of its own: it must not take the first one's place in the file.
  const besides = earlier !== undefined && (await tenantOf(earlier.server, earlier.apiKey)) !== undefined;

  say("starting Postgres, NATS and Redis …");
  await using services = await startServices({
    dataDir: world.dataDir,
    log: world.err,
    signal: world.signal,
    urls: { database: configured.postgres.url, nats: configured.nats.url, redis: configured.redis.url },
  });
  const config = readConfig({
    ...env,
    POSTHORN_DATABASE_URL: services.databaseUrl,
    POSTHORN_NATS_URL: services.natsUrl,
    POSTHORN_REDIS_URL: services.redisUrl,
    ...(await portsFor(env, configured, world.err)),
  });
  const { instanceId } = config;
  await using platform = await startPlatform(config, { log: createLogger({ ...config.telemetry, instanceId }) });
  const state = await credentials(platform, config, earlier);
  if (!besides) writeState(world.dataDir, state);

  if (json) world.out(JSON.stringify(state));
  else for (const line of greeting(world, state, services.versions, besides)) world.out(line);
  await aborted(world.signal);
  say("stopping …");
}

/** The ports of the configuration; where one is taken and nobody asked for it in particular, a free one. */
async function portsFor(env: Variables, config: Config, say: (line: string) => void): Promise<Variables> {
  const grpc = await portFor("gRPC", config.grpc, Boolean(env.POSTHORN_GRPC_PORT), say);
  const http = await portFor("HTTP", config.http, Boolean(env.POSTHORN_HTTP_PORT || env.WEBSOCKET_PORT), say);
  return { POSTHORN_GRPC_PORT: String(grpc), POSTHORN_HTTP_PORT: String(http) };
}

async function portFor(
  name: string,
  { port, host }: { port: number; host: string },
  asked: boolean,
  say: (line: string) => void,
): Promise<number> {
  if (asked || port === 0 || (await isFree(port, host))) return port;
  const { port: other } = await claimPort();
  say(`${name}: port ${port} is taken, using ${other} instead`);
  return other;
}

function isFree(port: number, host: string): Promise<boolean> {
  return new Promise((resolve) => {
    const server = createServer();
    server.once("error", () => resolve(false));
    server.listen({ port, host, exclusive: true }, () => server.close(() => resolve(true)));
  });
}

/** The tenant and key of the last start while they are good here, else new ones; a new user token in any case. */
async function credentials(platform: Platform, config: Config, earlier: LocalState | undefined): Promise<LocalState> {
  const server = config.grpc.tls === undefined ? platform.grpcUrl : `https://${platform.grpcUrl}`;
  const known = earlier && (await tenantOf(server, earlier.apiKey)) === earlier.tenantId ? earlier : undefined;
  const { tenantId, apiKey } = known ?? (await platform.bootstrap("Development"));
  // A user that exists, so that a send to everyone reaches somebody.
  await createClient(UserService, transportTo(server, apiKey)).upsertUser({ user: { id: USER, displayName: "Ada" } });
  const { token } = await admin(server, apiKey).createUserToken({ userId: USER, ttl: { seconds: TOKEN_SECONDS } });
  const operatorKey = config.auth.operatorKeys[0] ?? "";
  return { server, httpUrl: platform.httpUrl, tenantId, apiKey, operatorKey, userId: USER, userToken: token };
}

/** The tenant a key belongs to on this server; undefined when nobody answers or the key is not known there. */
async function tenantOf(server: string, apiKey: string): Promise<string | undefined> {
  try {
    const { tenantId } = await admin(server, apiKey).whoAmI({}, { timeoutMs: 2_000 });
    return tenantId;
  } catch {
    return undefined;
  }
}

function admin(server: string, apiKey: string) {
  return createClient(AdminService, transportTo(server, apiKey));
}

function greeting(
  world: World,
  state: LocalState,
  versions: { postgres: string; nats: string; redis: string },
  besides: boolean,
): string[] {
  const paint = painter(world);
  const { postgres, nats, redis } = versions;
  const facts = columns(
    [
      ["gRPC", `${paint("cyan", state.server)}  ${paint("dim", "with reflection and health")}`],
      [
        "HTTP",
        `${paint("cyan", state.httpUrl)}  ${paint("dim", "Connect, gRPC-Web and JSON; /healthz, /readyz, /metrics")}`,
      ],
      ["tenant", state.tenantId],
      ["API key", state.apiKey],
      ["user", state.userId],
      ["token", state.userToken],
    ].map(([name = "", value = ""]) => [paint("dim", name), value]),
    "  ",
  );
  const user = besides ? ` --user ${state.userId}` : "";
  const next = columns(
    [
      [`npx posthorn tail${user}`, `${state.userId}'s live stream`],
      [`npx posthorn send ${state.userId} -t "Hello"`, "arrives there"],
      [`npx posthorn inbox${user}`, "and stays here"],
    ].map(([command = "", does = ""]) => [paint("bold", command), paint("dim", `# ${does}`)]),
    "  ",
  );
  return [
    "",
    `${paint(["bold", "green"], "Posthorn is running")} ${paint("dim", `on Postgres ${postgres}, NATS ${nats} and Redis ${redis}`)}`,
    "",
    ...facts,
    "",
    besides
      ? "Another one runs in this checkout. To talk to this one, type in other terminals:"
      : "Type in other terminals:",
    ...(besides ? [`  export POSTHORN_SERVER=${state.server} POSTHORN_API_KEY=${state.apiKey}`] : []),
    ...next,
    "",
    paint(
      "dim",
      besides ? "Ctrl-C stops it." : `Ctrl-C stops it; the data stays. All this is in ${stateFile(world.dataDir)}.`,
    ),
    "",
  ];
}
