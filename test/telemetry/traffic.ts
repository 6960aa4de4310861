import { connect } from "nats";
import { afterAll } from "vitest";
import { Priority } from "#gen/posthorn/v1/notification_pb.ts";
import { ingestStream } from "#src/pipeline/flow.ts";
import { encodeCursor } from "#src/stream/cursor.ts";
import { createLogger } from "#src/telemetry/logger.ts";
import { startProxy } from "../fault/lab/proxy.ts";
import { platformOfFile, type TestPlatform } from "../support/platform.ts";
import { testServices } from "../support/services.ts";
import { openReader } from "../support/stream-reader.ts";
import { until } from "../support/until.ts";
import { type Collector, startCollector } from "./collector.ts";
import { rulesTraffic, trafficChannels } from "./rules-traffic.ts";
import { type Family, scrape } from "./scrape.ts";

/** What stands in what is sent, and must not come out where it is watched. */
export const CANARY = "canary-4711";

/** Two nodes that have carried a little of everything, and what could be seen of them meanwhile. */
export type Traffic = {
  front: TestPlatform;
  back: TestPlatform;
  collector: Collector;
  /** By name, the greatest value that any of a metric's samples had, on either node. */
  peaks: ReadonlyMap<string, number>;
  /** The last look at each node. */
  families(): Map<string, Family>[];
  lines: Record<string, unknown>[];
};

/** Call it at the top of a file. */
export async function traffic(): Promise<Traffic> {
  const shared = await testServices();
  const proxy = await startProxy(shared.redisUrl);
  afterAll(() => proxy[Symbol.asyncDispose]());
  const services = { ...shared, redisUrl: proxy.url };
  const collector = await startCollector();
  afterAll(() => collector[Symbol.asyncDispose]());
  const lines: Record<string, unknown>[] = [];
  const between = { channels: trafficChannels };
  const log = (instanceId: string) =>
    createLogger(
      { serviceName: "posthorn", logLevel: "debug", logFormat: "json", instanceId },
      { write: (line) => void lines.push(JSON.parse(line)) },
    );
  const env = (instance: string) => ({
    POSTHORN_INSTANCE_ID: instance,
    POSTHORN_OTLP_ENDPOINT: collector.url,
    POSTHORN_OTLP_METRICS_INTERVAL_MS: "500",
    POSTHORN_STREAM_HEARTBEAT_MS: "400",
    POSTHORN_RECONCILE_AFTER_MS: "1000",
    POSTHORN_RECONCILE_INTERVAL_MS: "1000",
    POSTHORN_DATABASE_POOL_SIZE: "1",
    POSTHORN_API_KEY_REQUESTS_PER_SECOND: "20",
    POSTHORN_API_KEY_BURST: "400",
    POSTHORN_USER_BURST: "5",
  });
  // The first node's queue fills up before there is a worker.
  const front = await platformOfFile({
    services,
    roles: ["api", "stream", "scheduler"],
    env: env("front"),
    log: log("front"),
    between,
  });
  const watch = watching([front]);
  await fill(front);
  await watch.seen("posthorn_queue_oldest_seconds");
  const back = await platformOfFile({
    services,
    roles: ["worker"],
    env: env("back"),
    log: log("back"),
    between,
    tenant: front.tenant,
  });
  watch.nodes.push(back);
  await live(front);
  await resume(front);
  await rulesTraffic(front, CANARY, watch.seen);
  await slow(front, watch);
  await lose(front, watch);
  await proxy.refuse("close");
  proxy.cut("fin");
  await front.key.send.send(to("without-redis"));
  await watch.seen("posthorn_limiter_fallback_total");
  await proxy.heal();
  await exhaust(front);
  await watch.stop();
  return { front, back, collector, peaks: watch.peaks, families: () => watch.last(), lines };
}

const to = (...userIds: string[]) => ({ to: { userIds }, content: { title: CANARY, body: CANARY } });

async function fill({ key }: TestPlatform): Promise<void> {
  const priorities = [Priority.CRITICAL, Priority.HIGH, Priority.NORMAL, Priority.LOW];
  const items = priorities.flatMap((priority) => [...Array(5).keys()].map((n) => ({ ...to(`user-${n}`), priority })));
  await key.send.sendBatch({ items });
  // More than a user gets within ten seconds.
  await key.send.sendBatch({ items: [...Array(10).keys()].map(() => to("user-0")) });
  for (const _ of [1, 2]) await key.send.send({ ...to("user-0"), idempotencyKey: `${CANARY}-key` });
  for (const _ of [1, 2]) await key.send.send({ ...to("user-0"), dedupKey: `${CANARY}-dedup` });
  await key.topics.upsertTopic({ topic: { key: "news" } });
  await key.topics.addMembers({ key: "news", userIds: ["user-1", "user-2"] });
  await key.send.send({ to: { topics: ["news"] }, content: { title: CANARY } });
  const subscription = { target: { case: "category", value: "general" }, filter: "data.absent > 1" } as const;
  await key.preferences.createSubscription({ userId: "choosy", subscription, reason: "a filter that fails" });
  await key.send.send(to("choosy"));
  // More than a tenant's share.
  const many = Array.from({ length: 1000 }, (_, n) => `many-${n}`);
  for (const _ of [1, 2, 3]) await key.send.send({ ...to(...many), priority: Priority.LOW });
  await Promise.all([...Array(40).keys()].map(() => key.topics.listTopics({})));
}

async function live({ key }: TestPlatform): Promise<void> {
  await using reader = openReader(key, { userId: "reader", includeStatus: true });
  await reader.next("caughtUp");
  await key.send.send(to("reader"));
  const { entry } = await reader.next("notification");
  const inASecond = () => ({ seconds: BigInt(Math.ceil(Date.now() / 1000) + 1) });
  await key.send.send({ ...to("reader"), schedule: { case: "scheduleTime", value: inASecond() } });
  await reader.next("notification");
  await key.inbox.snooze({ userId: "reader", notificationIds: [entry?.notificationId ?? ""], snoozeTime: inASecond() });
  await reader.next("notification");
}

async function resume({ key }: TestPlatform): Promise<void> {
  await using replayed = openReader(key, { userId: "reader", cursor: encodeCursor({ epoch: 0, seq: 0 }) });
  await replayed.next("caughtUp");
  await using reset = openReader(key, { userId: "reader", cursor: encodeCursor({ epoch: 4711, seq: 1 }) });
  await reset.next("reset");
}

/** A reader that does not read. */
async function slow({ key }: TestPlatform, watch: Watch): Promise<void> {
  let stuck = false;
  await using reader = openReader(key, { userId: "slow" }, () =>
    stuck ? new Promise<void>((done) => setTimeout(done, 60_000).unref()) : Promise.resolve(),
  );
  await reader.next("caughtUp");
  stuck = true;
  const data = { filler: "x".repeat(15_000) };
  for (let n = 0; n < 4; n++) {
    const items = [...Array(50).keys()].map(() => ({
      ...to("slow"),
      content: { title: "t", data },
      priority: Priority.CRITICAL,
    }));
    await key.send.sendBatch({ items });
  }
  await watch.seen("posthorn_stream_slow_consumers_total");
}

const LOST = ["posthorn_queue_publish_failures_total", "posthorn_job_failures_total"];

/** A lane's queue is gone: what is sent meanwhile is found by the reconciler. */
async function lose(node: TestPlatform, watch: Watch): Promise<void> {
  const nats = await connect({ servers: node.services.natsUrl });
  const manager = await nats.jetstreamManager();
  await until(
    async () => {
      await manager.streams.delete(ingestStream(node.services.namespace, "low")).catch(() => undefined);
      await node.key.send.send({ ...to("lost"), priority: Priority.LOW });
      await watch.look();
      return LOST.map((name) => watch.peaks.get(name) ?? 0);
    },
    (found) => found.every((count) => count > 0),
    30_000,
  );
  await nats.close();
  await watch.seen("posthorn_reconciler_republished_total");
}

async function exhaust({ key }: TestPlatform): Promise<void> {
  const calls = [...Array(600).keys()].map(() =>
    key.stream.getPresence({ userIds: ["reader"] }).catch(() => undefined),
  );
  await Promise.all(calls);
}

type Watch = ReturnType<typeof watching>;

/** Scrapes again and again. */
function watching(nodes: TestPlatform[]) {
  const peaks = new Map<string, number>();
  const newest = new Map<TestPlatform, Map<string, Family>>();
  let stopped = false;
  const look = async () => {
    for (const node of nodes) {
      const families = await scrape(node.platform.httpUrl);
      newest.set(node, families);
      for (const [name, { samples }] of families)
        for (const { value } of samples) peaks.set(name, Math.max(peaks.get(name) ?? 0, value));
    }
  };
  const running = (async () => {
    while (!stopped) {
      await look();
      await new Promise((done) => setTimeout(done, 20));
    }
  })();
  return {
    nodes,
    peaks,
    look,
    last: () => nodes.map((node) => newest.get(node) ?? new Map<string, Family>()),
    seen: (name: string) =>
      until(
        async () => peaks.get(name) ?? 0,
        (peak) => peak > 0,
        30_000,
      ),
    async stop() {
      stopped = true;
      await running;
      await look();
    },
  };
}
