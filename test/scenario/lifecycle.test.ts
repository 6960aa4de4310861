import { expect, test } from "vitest";
import { Status } from "#gen/posthorn/v1/notification_pb.ts";
import { startTestPlatform } from "../support/platform.ts";
import { testServices } from "../support/services.ts";
import { openReader } from "../support/stream-reader.ts";
import { until } from "../support/until.ts";

const services = await testServices();

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
