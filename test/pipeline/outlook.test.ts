import { type MessageInitShape, toJson } from "@bufbuild/protobuf";
import { type Timestamp, timestampDate, timestampFromDate } from "@bufbuild/protobuf/wkt";
import { expect, test, vi } from "vitest";
import { BatchKind, BatchState } from "#gen/posthorn/v1/batch_service_pb.ts";
import { type ExplainedEntry, ExplainedEntrySchema, GateAnswer } from "#gen/posthorn/v1/explain_pb.ts";
import { Channel, Priority, Reason, Status, VerdictKind } from "#gen/posthorn/v1/notification_pb.ts";
import { Digest_Mode } from "#gen/posthorn/v1/preferences_service_pb.ts";
import type { SendRequestSchema } from "#gen/posthorn/v1/send_service_pb.ts";
import { DigestRule } from "#gen/posthorn/v1/type_service_pb.ts";
import { batching, MINUTE } from "../batches/setup.ts";
import { seconds, sinkFolder } from "../escalation/setup.ts";
import { startProxy } from "../fault/lab/proxy.ts";
import { platformOfFile, startTestPlatform } from "../support/platform.ts";
import { testServices } from "../support/services.ts";
import { until } from "../support/until.ts";

// What follows a decision that is foreseen: the batch, the hand-overs, the escalation; and what is foreseen without Redis.

const services = await testServices();
const sink = await sinkFolder();
let now = new Date("2026-12-01T10:20:00Z");
const node = await platformOfFile({ services, clock: () => now, env: sink.env });
const { key } = node;
const { newType, newUser, prefer, send, batchOf } = batching(node);

type Request = Exclude<MessageInitShape<typeof SendRequestSchema>, { $typeName: string }>;

const preview = (user: string, more: Partial<Request> = {}, on = node) =>
  on.key.send.previewSend({ request: { to: { userIds: [user] }, content: { title: "Hi" }, ...more } });

test.each([
  ["batch", { batchable: true, maxSize: 3, sliding: true, window: { seconds: 600n } }, {}],
  ["digest", undefined, { digest: DigestRule.ALWAYS }],
] as const)(
  "the %s that it would open, join and fill is the one that it then opens, joins and fills",
  async (_, rule, more) => {
    const [user, type] = [newUser(), await newType(rule && { ...rule }, more)];
    for (const n of [1, 2, 3]) {
      now = new Date(now.getTime() + MINUTE);
      const { batch: foreseen, handOvers, ifUnanswered } = await preview(user, { type });
      const { batchId } = await send(user, type, "Hi");
      if (foreseen?.batch === undefined) throw new Error("no batch");
      const { id, ...batch } = foreseen.batch;
      const happened = await batchOf(batchId);
      expect(id).toBe(n === 1 ? "" : batchId);
      expect(batch).toEqual({ ...happened, id: undefined });
      expect(batch).toMatchObject({ size: n, state: n === 3 && rule ? BatchState.FULL : BatchState.OPEN });
      expect(foreseen?.channels).toEqual([Channel.IN_APP]);
      if (foreseen?.latestFlushTime === undefined) throw new Error("no latest time");
      const opened = now.getTime() - (n - 1) * MINUTE;
      const latest = rule ? opened + 40 * MINUTE : timestampDate(happened.flushTime as Timestamp).getTime();
      expect(timestampDate(foreseen.latestFlushTime).getTime()).toBe(latest);
      expect({ handOvers, ifUnanswered }).toEqual({ handOvers: [], ifUnanswered: [] });
    }
    expect((await preview(user, { type })).batch?.batch?.kind).toBe(rule ? BatchKind.BATCH : BatchKind.DIGEST);
  },
);

test("who would take it outside, and that nothing follows what does not come", async () => {
  const user = newUser();
  await prefer(user, { channels: { sms: false } });
  const channels = [Channel.IN_APP, Channel.EMAIL, Channel.SMS, Channel.PUSH];
  const { handOvers, batch } = await preview(user, { channels });
  expect(handOvers).toMatchObject(
    [Channel.EMAIL, Channel.PUSH].map((channel) => ({ channel, time: timestampFromDate(now) })),
  );
  expect(batch).toBeUndefined();
  await prefer(user, { enabled: false });
  const escalation = { steps: [{ channel: Channel.EMAIL, after: seconds(60) }] };
  expect(await preview(user, { channels, escalation })).toMatchObject({ handOvers: [], ifUnanswered: [] });
});

/** What the two histories have in common: a hand-over is told by its channel, which is asked nothing more. */
function turnsOf(entries: readonly ExplainedEntry[]) {
  return entries
    .filter(({ entry }) => entry !== undefined && (entry.step > 0 || entry.reason === Reason.CONFIRMATION_MISSING))
    .map(({ entry, decision }) =>
      entry?.verdicts[0]?.kind === VerdictKind.DELIVER
        ? { taken: entry.channel, step: entry.step, at: entry.time }
        : toJson(ExplainedEntrySchema, {
            $typeName: "posthorn.v1.ExplainedEntry",
            ...(entry && { entry }),
            ...(decision && { decision }),
          }),
    );
}

test("the steps of its escalation, held, passed on and taken, are those that come when nobody answers", async () => {
  const user = newUser();
  const start = new Date(now.getTime() + 10 * MINUTE).toISOString().slice(11, 16);
  const end = new Date(now.getTime() + 30 * MINUTE).toISOString().slice(11, 16);
  await prefer(user, { channels: { sms: false }, quietHours: { enabled: true, startTime: start, endTime: end } });
  const escalation = {
    steps: [Channel.EMAIL, Channel.SMS, Channel.PUSH].map((channel) => ({ channel, after: seconds(900) })),
  };
  const { ifUnanswered, timeline } = await preview(user, { escalation });
  expect(timeline.at(-1)?.entry?.status).toBe(Status.DELIVERED);
  expect(ifUnanswered.map(({ entry }) => [entry?.step, entry?.channel, entry?.reason])).toEqual([
    [1, Channel.EMAIL, Reason.QUIET_HOURS],
    [1, Channel.EMAIL, Reason.UNSPECIFIED],
    [2, Channel.SMS, Reason.CHANNEL_DISABLED],
    [3, Channel.PUSH, Reason.UNSPECIFIED],
    [0, Channel.UNSPECIFIED, Reason.CONFIRMATION_MISSING],
  ]);
  const answers = ifUnanswered.map(({ decision }) => decision?.channels[0]?.gates.map(({ answer }) => answer) ?? []);
  expect(answers[0]).toContain(GateAnswer.HELD);
  const { notificationId: id } = await send(user, "general", "Hi", { escalation });
  const turns = new Set(ifUnanswered.map(({ entry }) => (entry?.time ? timestampDate(entry.time).getTime() : 0)));
  for (const at of turns) {
    now = new Date(at);
    const due = ifUnanswered.filter(({ entry }) => entry?.time && timestampDate(entry.time).getTime() <= at);
    await until(
      () => key.send.explainNotification({ id }),
      (found) => turnsOf(found.timeline).length >= due.length,
    );
  }
  expect(turnsOf((await key.send.explainNotification({ id })).timeline)).toEqual(turnsOf(ifUnanswered));
});

test("what ends with the expiry is foreseen to end, and holds without an end are not followed for ever", async () => {
  const escalation = { steps: [{ channel: Channel.EMAIL, after: seconds(3600) }], confirmationRequired: true };
  const ttl = { case: "ttl" as const, value: { seconds: 600n } };
  const ended = await preview(newUser(), { escalation, expiry: ttl });
  expect(ended.ifUnanswered.map(({ entry }) => entry?.reason)).toEqual([Reason.EXPIRED]);
  const user = newUser();
  const always = { enabled: true, startTime: "00:00", endTime: "00:00", allowCritical: true };
  await prefer(user, { quietHours: always, digest: { mode: Digest_Mode.IMMEDIATE } });
  const waits = await preview(user, {});
  expect(waits.timeline.length).toBeLessThanOrEqual(30);
  expect(waits.timeline.at(-1)?.entry?.status).toBe(Status.HELD);
  const critical = await preview(user, { escalation, priority: Priority.CRITICAL });
  expect(critical.ifUnanswered.length).toBeGreaterThan(0);
});

test.each([
  ["open-local", Status.DELIVERED, Reason.UNSPECIFIED],
  ["closed", Status.HELD, Reason.LIMITER_UNAVAILABLE],
] as const)(
  "while Redis is away the policy answers, and it is said so: %s",
  async (policy, status, reason) => {
    await using proxy = await startProxy(services.redisUrl);
    const env = { POSTHORN_LIMITS_ON_REDIS_DOWN: policy, POSTHORN_USER_BURST: "2" };
    await using other = await startTestPlatform({
      services: { ...services, redisUrl: proxy.url },
      tenant: node.tenant,
      clock: () => now,
      roles: ["api"],
      env,
    });
    const user = newUser();
    const before = await preview(user, {}, other);
    expect(before.limitsUnknown).toBe(false);
    await proxy.refuse("close");
    proxy.cut("fin");
    const away = await vi.waitFor(async () => {
      const answer = await preview(user, {}, other);
      expect(answer.limitsUnknown).toBe(true);
      return answer;
    }, 20_000);
    expect(away.timeline.at(-1)?.entry).toMatchObject({ status, reason });
    // It is not asked again and again, as long as nobody knows when Redis is back.
    expect(away.timeline).toHaveLength(2);
    // What may pass the limits passes.
    const critical = await preview(user, { priority: Priority.CRITICAL }, other);
    expect(critical.timeline.at(-1)?.entry?.status).toBe(Status.DELIVERED);
    // A hold by the clock needs no limiter.
    await prefer(user, { quietHours: { enabled: true, startTime: "00:00", endTime: "23:59" }, timeZone: "UTC" });
    const held = await preview(user, {}, other);
    expect(held.timeline[1]?.entry?.reason).toBe(Reason.QUIET_HOURS);
    await proxy.heal();
    await vi.waitFor(async () => {
      now = new Date(now.getTime() + 1000);
      expect((await preview(user, {}, other)).limitsUnknown).toBe(false);
    }, 20_000);
  },
  120_000,
);
