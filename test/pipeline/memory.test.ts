import { expect, onTestFinished, test } from "vitest";
import { ErrorReason } from "#gen/posthorn/v1/error_pb.ts";
import { Priority, Status } from "#gen/posthorn/v1/notification_pb.ts";
import type { SendBatchResponse } from "#gen/posthorn/v1/send_service_pb.ts";
import { startTestPlatform, type TestPlatform } from "../support/platform.ts";
import { until } from "../support/until.ts";

const MB = 2 ** 20;
const GROUP = 10;

/** A node whose memory is what the test says, and that no collection makes less. */
async function nodeWithMemory(): Promise<TestPlatform & { live(mb: number): void }> {
  let tell = (_: number): void => undefined;
  const node = await startTestPlatform({
    env: { POSTHORN_ACCEPT_GROUP_MAX_ITEMS: String(GROUP), POSTHORN_MEMORY_THRESHOLD_MB: "256" },
    between: {
      memory: () => (collected) => {
        tell = collected;
        return { collect: () => undefined, [Symbol.dispose]: () => undefined };
      },
    },
  });
  onTestFinished(() => node[Symbol.asyncDispose]());
  return { ...node, live: (mb) => tell(mb * MB) };
}

const items = (count: number, userId: string, priority: Priority) =>
  Array.from({ length: count }, (_, n) => ({ to: { userIds: [userId] }, content: { title: `${n}` }, priority }));
const acceptedOf = ({ results }: SendBatchResponse) =>
  results.flatMap(({ result }) =>
    result.case === "response" ? result.value.results.map(({ notificationId }) => notificationId) : [],
  );
const refusedOf = ({ results }: SendBatchResponse) =>
  results.flatMap(({ result }) => (result.case === "error" ? [result.value] : []));

test("over the threshold nothing is dropped: Sends are kept or told to come again, CRITICAL goes on, and all arrives once", async () => {
  const { key, live } = await nodeWithMemory();
  const statuses = async (userId: string) => {
    const { notifications } = await key.send.listNotifications({ filter: { userId }, pageSize: 200 });
    return notifications.map(({ status }) => status);
  };
  const arrived = (userId: string, count: number) =>
    until(
      () => statuses(userId),
      (all) => all.length === count && all.every((status) => status === Status.DELIVERED),
    );

  live(300);
  const batch = await key.send.sendBatch({ items: items(100, "ann", Priority.NORMAL) });
  // As many as are being committed at once; what would have waited behind them is refused.
  expect(acceptedOf(batch)).toHaveLength(2 * GROUP);
  const refused = refusedOf(batch);
  expect(refused).toHaveLength(100 - 2 * GROUP);
  for (const refusal of refused) expect(refusal).toMatchObject({ reason: ErrorReason.OVERLOADED, code: 8 });
  // One that finds nobody waiting is kept.
  const lone = await key.send.send({ to: { userIds: ["ann"] }, content: { title: "lone" } });
  expect(lone.results).toHaveLength(1);

  const urgent = await key.send.sendBatch({ items: items(100, "bob", Priority.CRITICAL) });
  expect(acceptedOf(urgent)).toHaveLength(100);
  await arrived("bob", 100);
  expect(await statuses("ann")).toEqual(Array.from({ length: 2 * GROUP + 1 }, () => Status.ACCEPTED));

  live(100);
  await arrived("ann", 2 * GROUP + 1);
  const again = await key.send.sendBatch({ items: items(80, "ann", Priority.NORMAL) });
  expect(acceptedOf(again)).toHaveLength(80);
  await arrived("ann", 2 * GROUP + 81);
  for (const [userId, total] of [
    ["ann", 2 * GROUP + 81],
    ["bob", 100],
  ] as const)
    expect((await key.inbox.getCounts({ userId })).counts).toMatchObject({ total, unread: total });
});

test("a node that is stopped while it has no memory left stops, and another takes what it held", async () => {
  await using node = await nodeWithMemory();
  node.live(300);
  const sent = acceptedOf(await node.key.send.sendBatch({ items: items(2 * GROUP, "ann", Priority.LOW) }));
  expect(sent).toHaveLength(2 * GROUP);
  await using other = await startTestPlatform({ services: node.services, tenant: node.tenant });
  const counts = () => other.key.inbox.getCounts({ userId: "ann" });
  await node.platform[Symbol.asyncDispose]();
  const { counts: found } = await until(counts, (answer) => answer.counts?.total === 2 * GROUP);
  expect(found).toMatchObject({ unread: 2 * GROUP });
});
