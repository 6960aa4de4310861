// `npm run demo`: everything the platform does, done for real on this machine and checked. Exits with 0 only when every
// step showed what it had to. `-- --keep` stays up afterwards.
import { randomBytes } from "node:crypto";
import { join } from "node:path";
import { AdminService, type Scope, ScopeSchema } from "#gen/posthorn/v1/admin_service_pb.ts";
import { InboxService } from "#gen/posthorn/v1/inbox_service_pb.ts";
import { SendService } from "#gen/posthorn/v1/send_service_pb.ts";
import { StreamService } from "#gen/posthorn/v1/stream_service_pb.ts";
import { Preset, TypeService } from "#gen/posthorn/v1/type_service_pb.ts";
import { UserService } from "#gen/posthorn/v1/user_service_pb.ts";
import { readConfig } from "#src/config.ts";
import { type Platform, startPlatform } from "#src/main.ts";
import { createLogger } from "#src/telemetry/logger.ts";
import { callerOver, type Endpoints, openScene, overGrpc, overHttp, type Step, timed } from "./demo/scene.ts";
import { account } from "./demo/steps/account.ts";
import { batch } from "./demo/steps/batch.ts";
import { confirm } from "./demo/steps/confirm.ts";
import { limits } from "./demo/steps/limits.ts";
import { live } from "./demo/steps/live.ts";
import { quietHours } from "./demo/steps/quiet-hours.ts";
import { reminder } from "./demo/steps/reminder.ts";
import { repeats } from "./demo/steps/repeats.ts";
import { resume } from "./demo/steps/resume.ts";
import { together } from "./demo/steps/together.ts";
import { topic } from "./demo/steps/topic.ts";
import { must, type Story, tell } from "./demo/story.ts";
import { watch } from "./demo/watch.ts";
import { startServices } from "./services.ts";

/** In the order of the story. A new channel is a new step. */
const steps: readonly Step[] = [
  live,
  batch,
  repeats,
  quietHours,
  reminder,
  together,
  confirm,
  resume,
  topic,
  limits,
  account,
];

/** From the moment the servers answer: installing them may take as long as it takes. */
const LONGEST_MS = 180_000;

const stop = new AbortController();
for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const)
  process.on(signal, () => {
    if (stop.signal.aborted) process.exit(130);
    stop.abort();
  });

process.exitCode = await demo(process.argv.includes("--keep")).catch((error: unknown) => {
  if (!stop.signal.aborted) console.error(error instanceof Error ? error.message : error);
  return stop.signal.aborted ? 130 : 1;
});
process.exit();

async function demo(keep: boolean): Promise<number> {
  const out = process.stdout;
  const story = tell((line) => out.write(`${line}\n`), out.isTTY === true && out.hasColors() && !process.env.NO_COLOR);
  const began = new Date();
  const startedAt = performance.now();
  await using stack = new AsyncDisposableStack();

  out.write("Posthorn, on this machine: real Postgres, NATS JetStream and Redis, real gRPC and HTTP.\n");
  let platform: Platform | undefined;
  let apiKey = "";
  let tooLong: NodeJS.Timeout | undefined;
  await story.step("Start", async () => {
    const [services, ms] = await timed(() => localServices((line) => story.say(line)));
    stack.use(services);
    tooLong = giveUpAfter(LONGEST_MS);
    const { postgres, nats, redis } = services.versions;
    story.saw(`Postgres ${postgres}, NATS ${nats} and Redis ${redis} answer`, ms);
    const config = readConfig(environmentOn(services));
    const [started, platformMs] = await timed(() => startPlatform(config, { log: createLogger(config.telemetry) }));
    platform = stack.use(started);
    story.saw(`migrated; gRPC on ${started.grpcUrl}, Connect on ${started.httpUrl}`, platformMs);
    const [, warmMs] = await timed(async () => warmUp(started, (await started.bootstrap("Warm-up")).apiKey));
    story.saw("warmed up in another tenant: what follows is the pace of a running server", warmMs);
    apiKey = await prepare(story, started, config.auth.operatorKeys[0] ?? "");
  });
  if (platform === undefined || apiKey === "") return 1;

  const scene = openScene(story, platform, apiKey, began);
  for (const step of steps) {
    stop.signal.throwIfAborted();
    await story.step(step.title, () => step.show(scene));
  }
  const { seen, failed } = story.result();
  const seconds = ((performance.now() - startedAt) / 1000).toFixed(1);
  out.write(
    failed.length === 0
      ? `\nAll of it seen: ${seen} checks in ${seconds} s. Next: npm start\n`
      : `\nNot shown: ${failed.join("; ")}\n`,
  );
  if (keep) {
    clearTimeout(tooLong);
    await stayUp(platform, apiKey);
  }
  return failed.length === 0 ? 0 : 1;
}

/** A machine on which it takes longer has another problem, which is told as one. What was started ends with the process. */
function giveUpAfter(ms: number): NodeJS.Timeout {
  return setTimeout(() => {
    console.error(`Not finished within ${ms / 1000} s: given up.`);
    process.exit(1);
  }, ms);
}

/** What an operator does for a new customer. Returns the customer's API key. */
async function prepare(story: Story, platform: Platform, operatorKey: string): Promise<string> {
  const operator = callerOver(overGrpc(platform, operatorKey));
  const { tenant } = await operator(AdminService).createTenant({ displayName: "Demo" });
  const inTenant = callerOver(overGrpc(platform, operatorKey, tenant?.id));
  const scopes = ScopeSchema.values.map((value) => value.number).filter((number) => number !== 0) as Scope[];
  const { secret } = await inTenant(AdminService).createApiKey({ displayName: "backend", scopes });
  const backend = callerOver(overGrpc(platform, secret));
  const { types } = await backend(TypeService).loadPreset({ preset: Preset.TASKMASTER });
  must(types.length >= 10, `the preset brought ${types.length} types`);
  const { user } = await backend(UserService).upsertUser({
    user: {
      id: "ada",
      displayName: "Ada Lovelace",
      email: "ada@example.com",
      locale: "en-GB",
      timeZone: "Europe/London",
    },
  });
  story.saw(`a tenant, an API key, ${types.length} notification types and the user ${user?.displayName}`);
  return secret;
}

/** Lets the compiler see the hot paths, so that no step shows what the first call ever costs. */
async function warmUp(endpoints: Endpoints, apiKey: string): Promise<void> {
  const item = (n: number) => ({ to: { userIds: [`user-${n}`] }, content: { title: "Warm-up" } });
  for (const transport of [overGrpc(endpoints, apiKey), overHttp(endpoints, apiKey)]) {
    const call = callerOver(transport);
    const stream = watch(call(StreamService), { userId: "user-0" });
    await stream.until("caughtUp");
    for (let round = 0; round < 20; round++) {
      const sends = Array.from({ length: 8 }, (_, n) =>
        call(SendService).send({ ...item(100 * round + n), waitForDecision: { seconds: 5n } }),
      );
      await Promise.all([...sends, call(InboxService).listEntries({ userId: "user-0" })]);
    }
    await call(SendService).sendBatch({ items: Array.from({ length: 1_000 }, (_, n) => item(10_000 + n)) });
    await call(SendService).send({ ...item(99_999), waitForDecision: { seconds: 10n } });
    stream.cut();
  }
}

/** Servers of its own, beside those of a running `npm start`; the variables name others, as everywhere. */
function localServices(log: (line: string) => void) {
  const { POSTHORN_DATABASE_URL: database, POSTHORN_NATS_URL: nats, POSTHORN_REDIS_URL: redis } = process.env;
  return startServices({
    dataDir: join(import.meta.dirname, "../../.data/demo"),
    keep: false,
    log,
    signal: stop.signal,
    urls: { database: database || undefined, nats: nats || undefined, redis: redis || undefined },
  });
}

/** Only what the demo needs, whatever else is set around it. */
function environmentOn(services: { databaseUrl: string; natsUrl: string; redisUrl: string }): Record<string, string> {
  return {
    POSTHORN_ENV: "development",
    POSTHORN_DATABASE_URL: services.databaseUrl,
    POSTHORN_NATS_URL: services.natsUrl,
    POSTHORN_REDIS_URL: services.redisUrl,
    POSTHORN_NAMESPACE: `demo${randomBytes(4).toString("hex")}`,
    POSTHORN_GRPC_PORT: "0",
    POSTHORN_HTTP_PORT: "0",
    POSTHORN_LOG_LEVEL: "warn",
    POSTHORN_DEV_SINK: join(import.meta.dirname, "../../.data/demo/sink"),
  };
}

async function stayUp(platform: Platform, apiKey: string): Promise<void> {
  process.stdout.write(`
Still running until Ctrl-C:
  gRPC   ${platform.grpcUrl}
  HTTP   ${platform.httpUrl}
  export POSTHORN_SERVER=${platform.grpcUrl} POSTHORN_API_KEY=${apiKey}
  npx posthorn tail --user ada
`);
  // Timers keep the process; a listener alone would not.
  const alive = setInterval(() => undefined, 1 << 30);
  if (!stop.signal.aborted)
    await new Promise((resolve) => stop.signal.addEventListener("abort", resolve, { once: true }));
  clearInterval(alive);
}
