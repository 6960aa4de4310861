import postgres from "postgres";
import { afterAll, expect, test } from "vitest";
import { Code } from "#src/errors.ts";
import { createLogger } from "#src/telemetry/logger.ts";
import { MINUTE, steppedClock } from "../../batches/setup.ts";
import { shipped } from "../../support/descriptors.ts";
import { platformOfFile } from "../../support/platform.ts";
import { refusalOf } from "../../support/refusal.ts";
import { testServices } from "../../support/services.ts";
import { until } from "../../support/until.ts";
import { scrape } from "../../telemetry/scrape.ts";

const services = await testServices();
const { clock, step: pass } = steppedClock();
const lines: Record<string, unknown>[] = [];
const log = createLogger(
  { serviceName: "posthorn", logLevel: "error", logFormat: "json" },
  { write: (line) => void lines.push(JSON.parse(line)) },
);
const { key, tenant, platform } = await platformOfFile({ services, clock, log });
/** Has read what the other has not yet. */
const before = await platformOfFile({ services, clock, tenant, roles: ["api"] });
const sql = postgres(services.databaseUrl, { max: 1, onnotice: () => undefined });
afterAll(() => sql.end());
const message = "acme.Shipped";
const GOOD = shipped("string order = 1;");
/** No server of today takes it: it stands for what an earlier one took. */
const REFUSED = shipped('string order = 1 [(buf.validate.field).cel = {id: "r", message: "m", expression: "this ("}];');

let types = 0;
async function newType(): Promise<string> {
  const type = `unusable-${++types}`;
  await key.types.createType({ type: { key: type } });
  await key.types.pushPayload({ type, descriptorSet: GOOD, message });
  return type;
}
async function unusableType(): Promise<string> {
  const type = await newType();
  await spoil(type);
  return type;
}
async function spoil(type: string): Promise<void> {
  const { count } = await sql`update payload_contracts set descriptor_set = ${Buffer.from(REFUSED)}
    where tenant_id = ${tenant.tenantId} and type = ${type}`;
  expect(count).toBe(1);
}
/** Of this server alone. */
async function counted(name: string, labels: Record<string, string> = {}): Promise<number> {
  const found = (await scrape(platform.httpUrl)).get(name)?.samples ?? [];
  const wanted = found.filter((sample) => Object.entries(labels).every(([label, is]) => sample.labels[label] === is));
  return wanted.reduce((sum, { value }) => sum + value, 0);
}
const UNUSABLE = "posthorn_payload_contract_unusable_total";
const item = (type: string) => ({
  to: { userIds: [`of-${type}`] },
  type,
  content: { title: "t", ...(type !== "general" && { data: { order: "A" } }) },
});

test("of a contract that cannot be used any more only its own items are refused, by what tells which", async () => {
  const [bad, good] = [await unusableType(), await newType()];
  const { results } = await key.send.sendBatch({ items: [item(bad), item(good), item("general"), item(bad)] });
  expect(results.map(({ result }) => result.case)).toEqual(["error", "response", "response", "error"]);
  const { entries } = await key.inbox.listEntries({ userId: `of-${bad}` });
  expect(entries).toEqual([]);
  for (let again = 0; again < 2; again++)
    expect(await refusalOf(key.send.send(item(bad)))).toMatchObject({
      code: Code.FAILED_PRECONDITION,
      reason: "PAYLOAD_CONTRACT_UNUSABLE",
      metadata: { type: bad, version: "1" },
      message: expect.stringMatching(/version 1 .* type "unusable-\d+".*PushPayload/),
    });
});

test("the check says why, and a push that can be used mends it", async () => {
  const bad = await unusableType();
  await refusalOf(key.send.send(item(bad)));
  const why = await refusalOf(key.types.checkPayload({ type: bad, descriptorSet: REFUSED, message }));
  expect(why).toMatchObject({ reason: "INVALID_REQUEST", fields: ["descriptor_set"] });
  // Compared with what cannot be used as with any other version.
  const other = await refusalOf(
    key.types.pushPayload({ type: bad, descriptorSet: shipped("bytes order = 1;"), message }),
  );
  expect(other.reason).toBe("PAYLOAD_INCOMPATIBLE");
  const mended = shipped("string order = 1; int32 parcels = 2;");
  expect((await key.types.pushPayload({ type: bad, descriptorSet: mended, message })).contract?.version).toBe(2);
  expect((await key.send.send(item(bad))).results).toHaveLength(1);
});

test("it is logged once, with what it is about and why, and counted as often as it is looked for", async () => {
  const [bad, good, was] = [await unusableType(), await newType(), await counted(UNUSABLE)];
  await key.send.send(item(good));
  expect(await counted(UNUSABLE)).toBe(was);
  for (let again = 0; again < 3; again++) await refusalOf(key.send.send(item(bad)));
  expect(await counted(UNUSABLE)).toBe(was + 3);
  expect(lines.filter(({ type }) => type === bad)).toEqual([
    expect.objectContaining({
      ...{ level: "error", msg: "cannot use a stored payload contract", tenant: tenant.tenantId, version: 1 },
      err: expect.objectContaining({
        cause: expect.objectContaining({ message: expect.stringMatching(/no expression of CEL/) }),
      }),
    }),
  ]);
});

test("its schedules are put off, those of others are sent, and go on when a push has mended it", async () => {
  const [bad, good] = [await newType(), await newType()];
  const localStartTime = new Date(clock().getTime() + 30 * MINUTE).toISOString().slice(0, 19);
  for (const type of [bad, good]) {
    const rule = { recurrence: "FREQ=HOURLY;COUNT=3", localStartTime, timeZone: "UTC" };
    await before.key.schedules.createSchedule({ schedule: { key: type, request: item(type), ...rule } });
  }
  await spoil(bad);
  const of = async (name: string) => (await key.schedules.getSchedule({ key: name })).schedule;
  const was = await counted("posthorn_occurrences_total", { outcome: "put_off" });
  pass(31 * MINUTE);
  await until(
    () => counted("posthorn_occurrences_total", { outcome: "put_off" }),
    (count) => count === was + 1,
  );
  await until(
    () => of(good),
    (schedule) => schedule?.firedCount === 1n,
  );
  expect(await of(bad)).toMatchObject({ firedCount: 0n, missedCount: 0n });
  expect(lines.filter(({ schedule }) => schedule === bad)).toMatchObject([
    {
      level: "error",
      msg: "a schedule cannot be sent as it is; it is tried again in an hour",
      tenant: tenant.tenantId,
    },
  ]);
  await key.types.pushPayload({ type: bad, descriptorSet: shipped("string order = 1; int32 parcels = 2;"), message });
  pass(61 * MINUTE);
  await until(
    () => of(bad),
    (schedule) => schedule?.firedCount === 1n && schedule.missedCount === 1n,
  );
});

test("a type of such a contract takes every change but a wording, which could not be checked", async () => {
  const bad = await unusableType();
  const change = (type: object, path: string) =>
    key.types.updateType({ type: { key: bad, ...type }, updateMask: { paths: [path] } });
  expect(await refusalOf(change({ wording: { title: "Order {order}" } }, "wording"))).toMatchObject({
    code: Code.FAILED_PRECONDITION,
    reason: "PAYLOAD_CONTRACT_UNUSABLE",
    metadata: { type: bad, version: "1" },
  });
  expect((await change({ displayName: "Shipped" }, "display_name")).type).toMatchObject({ displayName: "Shipped" });
});
