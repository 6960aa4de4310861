import { timestampFromDate } from "@bufbuild/protobuf/wkt";
import { expect, test } from "vitest";
import { ErrorReason } from "#gen/posthorn/v1/error_pb.ts";
import { Channel, Status } from "#gen/posthorn/v1/notification_pb.ts";
import { Warning_Code } from "#gen/posthorn/v1/warning_pb.ts";
import { MINUTE, steppedClock } from "../batches/setup.ts";
import { platformOfFile } from "../support/platform.ts";
import { refusalOf as refusal } from "../support/refusal.ts";
import { testServices } from "../support/services.ts";
import { until } from "../support/until.ts";

const services = await testServices();
const { clock, step: pass } = steppedClock();
const node = await platformOfFile({ services, clock });
const { key } = node;
let made = 0;
const later = (ms: number) => timestampFromDate(new Date(clock().getTime() + ms));
const content = { title: "On its way" };

/** A type that is refused from an hour on. */
async function newType(more: { batchable?: boolean } = {}) {
  const name = `old_${++made}`;
  const deprecation = { note: "has no parcels", replacement: "shipped", sunsetTime: later(60 * MINUTE) };
  const batching = { batchable: true, window: { seconds: 7200n } };
  const { type } = await key.types.createType({
    type: { key: name, deprecation, ...(more.batchable && { batching }) },
  });
  const sunsetTime = type?.deprecation?.sunsetTime;
  return {
    name,
    sunsetTime,
    warning: { code: Warning_Code.TYPE_DEPRECATED, type: name, replacement: "shipped", sunsetTime },
  };
}

const send = (type: string, more: object = {}) =>
  key.send.send({ to: { userIds: ["ada"] }, type, content, waitForDecision: { seconds: 10n }, ...more });

/** What a call is refused with. */
const sunset = (name: string) => ({
  reason: "TYPE_SUNSET",
  metadata: { type: name, replacement: "shipped", sunset_time: expect.stringMatching(/Z$/) },
});

test("until its sunset it is sent, and whoever sends it is told; from then on it is refused", async () => {
  const { name, warning } = await newType();
  const first = await send(name, { idempotencyKey: `${name}:1` });
  expect(first).toMatchObject({ results: [{ status: Status.DELIVERED }], warnings: [warning] });
  expect((await send(name, { idempotencyKey: `${name}:1` })).warnings).toMatchObject([warning]);
  const items = [
    { to: { userIds: ["ada"] }, type: name, content },
    { to: { userIds: ["ada"] }, content },
  ];
  const { results } = await key.send.sendBatch({ items });
  expect(results).toMatchObject([
    { result: { value: { warnings: [warning] } } },
    { result: { value: { warnings: [] } } },
  ]);
  const request = { to: { userIds: ["ada"] }, type: name, content };
  expect((await key.send.previewSend({ request })).warnings).toMatchObject([warning]);
  expect(await refusal(key.send.previewSend({ request, time: later(61 * MINUTE) }))).toMatchObject(sunset(name));

  pass(60 * MINUTE);
  expect(await refusal(send(name))).toMatchObject(sunset(name));
  const after = await key.send.sendBatch({ items });
  expect(after.results).toMatchObject([
    { result: { case: "error", value: { reason: ErrorReason.TYPE_SUNSET } } },
    { result: { case: "response" } },
  ]);
  expect(await refusal(key.send.previewSend({ request }))).toMatchObject(sunset(name));

  // It can be taken back.
  await key.types.updateType({ type: { key: name }, updateMask: { paths: ["deprecation"] } });
  expect(await send(name)).toMatchObject({ results: [{ status: Status.DELIVERED }], warnings: [] });
});

test("what was accepted before is kept: what is scheduled, what is batched, and a deadline's reminders", async () => {
  const { name } = await newType({ batchable: true });
  const at = { schedule: { case: "scheduleTime" as const, value: later(90 * MINUTE) }, batchable: false };
  const scheduled = (await send(name, at)).results[0]?.notificationId ?? "";
  const batched = (await send(name)).results[0];
  expect(batched?.status).toBe(Status.BATCHED);
  const deadline = {
    userId: "ben",
    key: name,
    type: name,
    time: later(180 * MINUTE),
    content,
    reminderOffsets: { offsets: [{ seconds: 5400n }] },
  };
  const set = await key.schedules.upsertDeadline({ deadline });
  expect(set.warnings).toHaveLength(1);
  const [reminder] = set.deadline?.reminders ?? [];
  pass(60 * MINUTE);
  expect(await refusal(key.schedules.upsertDeadline({ deadline }))).toMatchObject(sunset(name));
  pass(60 * MINUTE);
  for (const id of [scheduled, batched?.notificationId ?? "", reminder?.notificationId ?? ""])
    await until(
      () => key.send.getNotification({ id }),
      ({ notification }) => notification?.status === Status.DELIVERED,
    );
});

test("a schedule sends what comes before the sunset, and counts what comes after as missed", async () => {
  const { name, warning, sunsetTime } = await newType();
  const start = (ms: number) => new Date(clock().getTime() + ms).toISOString().slice(0, 19);
  const schedule = (ms: number) => ({
    key: name,
    request: { to: { userIds: ["ada"] }, type: name, content },
    recurrence: "FREQ=HOURLY;COUNT=3",
    localStartTime: start(ms),
    timeZone: "UTC",
  });
  const late = await refusal(key.schedules.createSchedule({ schedule: schedule(61 * MINUTE) }));
  expect(late).toMatchObject(sunset(name));
  const created = await key.schedules.createSchedule({ schedule: schedule(30 * MINUTE) });
  expect(created.warnings).toMatchObject([warning]);
  const counted = (fired: bigint, missed: bigint) =>
    until(
      () => key.schedules.getSchedule({ key: name }),
      ({ schedule }) => schedule?.firedCount === fired && schedule.missedCount === missed,
    );
  pass(31 * MINUTE);
  await counted(1n, 0n);
  pass(60 * MINUTE);
  await counted(1n, 1n);
  const update = { schedule: { key: name, request: schedule(0).request }, updateMask: { paths: ["request"] } };
  expect(await refusal(key.schedules.updateSchedule(update))).toMatchObject(sunset(name));
  // Put off, it is sent again.
  const deprecation = {
    replacement: "shipped",
    sunsetTime: timestampFromDate(new Date(Number(sunsetTime?.seconds) * 1000 + 86_400_000)),
  };
  await key.types.updateType({ type: { key: name, deprecation } });
  pass(60 * MINUTE);
  await counted(2n, 1n);
});

test("a fan-out that goes on is not ended by the sunset", async () => {
  const { name } = await newType();
  await key.topics.upsertTopic({ topic: { key: name } });
  const userIds = Array.from({ length: 20 }, (_, n) => `${name}-${n}`);
  await key.topics.addMembers({ key: name, userIds });
  const { fanoutId, warnings } = await send(name, { to: { topics: [name] } });
  expect(warnings).toHaveLength(1);
  pass(60 * MINUTE);
  const { fanout } = await until(
    () => key.send.getFanout({ id: fanoutId }),
    ({ fanout }) => fanout?.endTime !== undefined,
  );
  expect(fanout?.created).toBe(20n);
});

test("it is listed, changed by the mask, and told as a difference", async () => {
  const { name, sunsetTime } = await newType();
  await key.types.createType({ type: { key: `new_${made}`, defaultChannels: [Channel.IN_APP] } });
  const keys = async (filter: object) =>
    (await key.types.listTypes({ pageSize: 200, ...filter })).types.map((each) => each.key);
  expect(await keys({ deprecated: true })).toContain(name);
  expect(await keys({ deprecated: false })).not.toContain(name);
  expect(await keys({ deprecated: false })).toContain(`new_${made}`);
  expect(await keys({})).toEqual(expect.arrayContaining([name, `new_${made}`]));
  const deprecation = { note: "use the other", replacement: "shipped", ...(sunsetTime && { sunsetTime }) };
  const change = { type: { key: name, deprecation }, updateMask: { paths: ["deprecation"] } };
  const would = await key.types.updateType({ ...change, validateOnly: true });
  expect(would.changes).toMatchObject([
    { path: "deprecation.note", before: '"has no parcels"', after: '"use the other"' },
  ]);
  expect((await key.types.updateType(change)).changes).toEqual(would.changes);
  expect((await key.types.updateType(change)).changes).toEqual([]);
  const { revisions } = await key.types.listTypeRevisions({ key: name });
  expect(revisions[0]).toMatchObject({ type: { deprecation }, changes: would.changes });
});

test.each([
  ["itself in its place", { replacement: "odd" }, "type.deprecation.replacement"],
  ["a time that is none", { sunsetTime: { seconds: 10n ** 15n } }, "type.deprecation.sunset_time"],
  ["what no text can hold", { note: "\0" }, "type.deprecation.note"],
])("refused is %s", async (_, deprecation, field) => {
  const { fields } = await refusal(key.types.createType({ type: { key: "odd", deprecation } }));
  expect(fields).toEqual([field]);
});
