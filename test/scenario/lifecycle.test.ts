import { expect, test } from "vitest";
import { Status } from "#gen/posthorn/v1/notification_pb.ts";
import { startTestPlatform } from "../support/platform.ts";
import { testServices } from "../support/services.ts";
import { openReader } from "../support/stream-reader.ts";
import { until } from "../support/until.ts";

const services = await testServices();

/** What keeps a process alive, by kind. */
function held(): Map<string, number> {
  const counts = new Map<string, number>();
  for (const kind of process.getActiveResourcesInfo()) counts.set(kind, (counts.get(kind) ?? 0) + 1);
  return counts;
}

const SOCKETS = ["TCPSocketWrap", "TCPServerWrap", "TCPWRAP", "TLSWRAP", "HTTP2SESSION", "PipeWrap"];
const open = () => SOCKETS.map((kind) => held().get(kind) ?? 0);

async function lifeOfOne(): Promise<void> {
  const node = await startTestPlatform({ services });
  const alice = await node.clientsFor("alice");
  const reader = openReader(alice);
  await reader.next("caughtUp");
  const { results } = await node.key.send.send({
    to: { userIds: ["alice"] },
    content: { title: "Hi" },
    waitForDecision: { seconds: 5n },
  });
  expect(results[0]?.status).toBe(Status.DELIVERED);
  await reader.next("notification");
  const ended = reader.ended;
  await node[Symbol.asyncDispose]();
  await ended;
}

test("a platform starts and stops again and again, and leaves nothing behind", async () => {
  // What the first one leaves is there for good: modules, pools of the test itself.
  await lifeOfOne();
  const before = await until(
    async () => open(),
    () => true,
  );
  const timers = () => held().get("Timeout") ?? 0;
  const timersBefore = timers();
  for (let n = 0; n < 5; n++) await lifeOfOne();
  await until(
    async () => open(),
    (now) => now.every((count, index) => count <= (before[index] ?? 0)),
  );
  await until(
    async () => timers(),
    (now) => now <= timersBefore + 2,
  );
});

test("two nodes start at the same time on an empty NATS", async () => {
  const nodes = await Promise.all([startTestPlatform({ services }), startTestPlatform({ services })]);
  await Promise.all(nodes.map((node) => node[Symbol.asyncDispose]()));
});

test("a drain fails no call that is under way, sends streams elsewhere, and probes say so", async () => {
  // Without a worker a wait for the decision takes as long as it may.
  const env = { POSTHORN_STREAM_DRAIN_MS: "300" };
  await using node = await startTestPlatform({ services, roles: ["api", "stream"], env });
  const readiness = () =>
    fetch(`${node.platform.httpUrl}/readyz`).then(
      ({ status }) => status,
      () => 0,
    );
  expect(await readiness()).toBe(200);
  const reader = openReader(await node.clientsFor("bob"));
  await reader.next("caughtUp");
  const request = { to: { userIds: ["bob"] }, content: { title: "Hi" }, waitForDecision: { nanos: 700_000_000 } };
  const sends = Promise.all(Array.from({ length: 20 }, () => node.key.send.send(request)));
  await until(
    () => node.key.send.listNotifications({ filter: { userId: "bob" }, pageSize: 100 }),
    ({ notifications }) => notifications.length === 20,
  );
  const drained = node.platform.drain();
  expect((await reader.next("reconnect")).cursor).not.toBe("");
  expect((await sends).map(({ results }) => results[0]?.status)).toEqual(Array(20).fill(Status.ACCEPTED));
  await drained;
  expect(await readiness()).not.toBe(200);
});
