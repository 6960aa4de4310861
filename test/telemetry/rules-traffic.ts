import postgres from "postgres";
import { Channel, Priority, Status } from "#gen/posthorn/v1/notification_pb.ts";
import { DeliveryMode, DigestRule } from "#gen/posthorn/v1/type_service_pb.ts";
import type { Channels, Message, Outcome } from "#src/channels/channel.ts";
import { localTimeOf } from "#src/notifications/local-time.ts";
import { batching } from "../batches/setup.ts";
import type { TestPlatform } from "../support/platform.ts";
import { until } from "../support/until.ts";

/** One that takes everything, one that refuses everything, one that says nothing the first time, and one that never does. */
export function trafficChannels(): Channels {
  const seen = new Set<string>();
  const again = async ({ idempotencyKey }: Message): Promise<Outcome> => {
    if (seen.has(idempotencyKey)) return { kind: "sent" };
    seen.add(idempotencyKey);
    throw new Error("no answer");
  };
  return new Map([
    [Channel.EMAIL, { deliver: async () => ({ kind: "sent" }) }],
    [Channel.SMS, { deliver: async () => ({ kind: "rejected", cause: new Error("no such number") }) }],
    [Channel.PUSH, { deliver: again }],
    [Channel.WEBHOOK, { deliver: async () => ({ kind: "unknown", cause: new Error("no answer") }) }],
  ]);
}

/** Waits until a metric has been above zero. */
type Seen = (name: string) => Promise<unknown>;

type Tools = ReturnType<typeof batching>;

const seconds = (n: number) => ({ seconds: BigInt(n) });

/** Channels, escalations, batches, digests, the hourly cap and a schedule: a little of each, and each in every way it ends. */
export async function rulesTraffic(node: TestPlatform, canary: string, seen: Seen): Promise<void> {
  const sql = postgres(node.services.databaseUrl, { max: 2, onnotice: () => undefined });
  try {
    const tools = batching(node);
    await outside(node, tools, sql, canary, seen);
    await batches(node, tools, canary);
    await cap(tools, canary);
    await occurrence(node, canary);
  } finally {
    await sql.end();
  }
}

async function outside(
  { key, tenant }: TestPlatform,
  { get, send: sendTo }: Tools,
  sql: postgres.Sql,
  canary: string,
  seen: Seen,
): Promise<void> {
  const send = async (userId: string, more: object) => (await sendTo(userId, "general", canary, more)).notificationId;
  const chain = (confirmationRequired: boolean) => ({
    escalation: { steps: [{ channel: Channel.EMAIL, after: seconds(10) }], confirmationRequired },
  });
  await key.types.createType({ type: { key: "once", deliveryMode: DeliveryMode.AT_MOST_ONCE, deprecation: {} } });
  const { notificationId: unknown } = await sendTo("outside-8", "once", canary, { channels: [Channel.WEBHOOK] });
  const [sent, refused, late] = [
    await send("outside-1", { channels: [Channel.EMAIL, Channel.PUSH] }),
    await send("outside-2", { channels: [Channel.SMS] }),
    await send("outside-3", { channels: [Channel.PUSH], expiry: { case: "ttl", value: seconds(1) } }),
  ];
  const escalated = await send("outside-4", chain(true));
  const confirmed = await send("outside-5", chain(true));
  const read = await send("outside-6", chain(false));
  const cancelled = await send("outside-7", chain(true));
  await key.send.confirmNotification({ id: confirmed, reason: "a test" });
  await key.inbox.markRead({ userId: "outside-6", notificationIds: [read] });
  await key.send.cancelEscalation({ id: cancelled });
  // Ten seconds are the least a step may wait, and so long it waits after the last.
  const mature = () => sql`
    update escalations set due_at = now(), turn_at = now()
    where tenant_id = ${tenant.tenantId} and notification_id = ${escalated} and due_at is not null`;
  // As long as somebody holds it, nobody takes its step: what is due waits.
  await sql.begin(async (tx) => {
    await tx`select from notifications where tenant_id = ${tenant.tenantId} and id = ${escalated} for update`;
    await mature();
    await seen("posthorn_scheduler_waiting");
    await seen("posthorn_scheduler_oldest_seconds");
  });
  await until(
    async () => (await mature()).count,
    (moved) => moved === 0,
  );
  const ended = (id: string, status: Status) =>
    until(
      () => get(id),
      (found) => found.status === status,
    );
  await ended(sent, Status.DELIVERED);
  await ended(refused, Status.FAILED);
  await ended(unknown, Status.FAILED);
  await ended(late, Status.EXPIRED);
}

async function batches(node: TestPlatform, { newType, send, closed, prefer }: Tools, canary: string): Promise<void> {
  const type = await newType({ batchable: true, maxSize: 2, window: seconds(1) });
  const long = await newType({ batchable: true, maxSize: 2, window: seconds(600) });
  const window = (await send("batched-1", type, canary)).batchId;
  await send("batched-2", long, canary);
  const size = (await send("batched-2", long, canary)).batchId;
  const early = (await send("batched-3", long, canary)).batchId;
  await node.key.batches.closeBatch({ id: early, reason: "a test" });
  for (const id of [window, size, early]) await closed(id);
  await send("batched-4", long, canary);
  await prefer("batched-4", { batching: { enabled: false } });
}

async function cap({ newType, send, prefer }: Tools, canary: string): Promise<void> {
  const never = await newType(undefined, { digest: DigestRule.NEVER });
  await prefer("capped", { hourlyCap: { enabled: true, maxPerHour: 1 } });
  await send("capped", "general", canary);
  await send("capped", "general", canary);
  await send("capped", never, canary);
  await send("capped", never, canary, { priority: Priority.CRITICAL });
}

async function occurrence({ key }: TestPlatform, canary: string): Promise<void> {
  const localStartTime = localTimeOf(new Date(Date.now() + 2_000), "UTC");
  const request = { to: { userIds: ["scheduled"] }, content: { title: canary } };
  const recurrence = "FREQ=DAILY;COUNT=1";
  await key.schedules.createSchedule({
    schedule: { key: "once", request, recurrence, localStartTime, timeZone: "UTC" },
  });
  await until(
    () => key.inbox.listEntries({ userId: "scheduled" }),
    ({ entries }) => entries.length === 1,
  );
}
