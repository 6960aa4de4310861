import { durationFromMs } from "@bufbuild/protobuf/wkt";
import { expect, test } from "vitest";
import { ErrorReason } from "#gen/posthorn/v1/error_pb.ts";
import { Channel, Priority, Reason, Status } from "#gen/posthorn/v1/notification_pb.ts";
import { Preset, TypeService } from "#gen/posthorn/v1/type_service_pb.ts";
import { typeService } from "#src/services/type-service.ts";
import { insertTypes } from "#src/types/queries.ts";
import { GENERAL_DEFINITION } from "#src/types/type.ts";
import { invoke } from "../support/invoke.ts";
import { onPostgres } from "../support/on-postgres.ts";
import { faultOf } from "../support/rejection.ts";
import { wait, wrongSuppressions } from "../support/waiting.ts";

const setup = await onPostgres();
const { store, sql, time, invalidations, tenant } = setup;
const service = typeService(setup);
const { createType, getType, listTypes, updateType, deleteType, loadPreset } = TypeService.method;

const audited = async (tenantId: string): Promise<string[]> => {
  const rows = await sql`select action, target from audit_entries where tenant_id = ${tenantId} order by id`;
  return rows.map((row) => `${row.action} ${row.target}`);
};

test("a type is created with the contract's defaults, once", async () => {
  const call = tenant();
  const { type } = await invoke(service, createType, { type: { key: "news", revision: 7 } }, call);
  expect(type).toMatchObject({
    key: "news",
    category: "general",
    defaultPriority: Priority.NORMAL,
    defaultChannels: [Channel.IN_APP],
    optIn: false,
    revision: 1,
  });
  expect(type?.defaultTtl).toBeUndefined();
  expect((await invoke(service, getType, { key: "news" }, call)).type).toEqual(type);
  const again = await faultOf(invoke(service, createType, { type: { key: "news" } }, call));
  expect(again.reason).toBe(ErrorReason.ALREADY_EXISTS);
  expect(await audited(call.tenantId)).toEqual(["type.create type:news"]);
  expect(invalidations.published).toContainEqual(["type", call.tenantId, "news"]);
});

test("of concurrent creations of one type one succeeds", async () => {
  const call = tenant();
  const results = await Promise.allSettled(
    Array.from({ length: 12 }, (_, n) =>
      invoke(service, createType, { type: { key: "news", displayName: `No. ${n}` } }, call),
    ),
  );
  expect(results.filter((result) => result.status === "fulfilled")).toHaveLength(1);
  expect(await audited(call.tenantId)).toHaveLength(1);
});

test("an update changes what the mask names and raises the revision; one that changes nothing does not", async () => {
  const call = tenant();
  const type = {
    key: "news",
    displayName: "News",
    category: "press",
    defaultPriority: Priority.HIGH,
    defaultTtl: durationFromMs(90_500),
    optIn: true,
  };
  const created = await invoke(service, createType, { type }, call);
  time.now = new Date(time.now.getTime() + 1000);
  const cleared = await invoke(
    service,
    updateType,
    { type: { key: "news", displayName: "x" }, updateMask: { paths: ["category", "default_priority", "default_ttl"] } },
    call,
  );
  expect(cleared.type).toMatchObject({
    displayName: "News",
    category: "general",
    defaultPriority: Priority.NORMAL,
    optIn: true,
    revision: 2,
    createTime: created.type?.createTime,
  });
  expect(cleared.type?.defaultTtl).toBeUndefined();
  const set = await invoke(service, updateType, { type: { key: "news", defaultTtl: durationFromMs(1500) } }, call);
  expect(set.type).toMatchObject({ defaultTtl: durationFromMs(1500), revision: 3, displayName: "News" });
  const same = await invoke(service, updateType, { type: { key: "news", displayName: "News" } }, call);
  expect(same.type).toEqual(set.type);
  expect((await invoke(service, getType, { key: "news" }, call)).type).toEqual(set.type);
  expect(await audited(call.tenantId)).toHaveLength(3);
});

test("an update with a stale revision is aborted; of concurrent ones with the same revision one succeeds", async () => {
  const call = tenant();
  await invoke(service, createType, { type: { key: "news" } }, call);
  const results = await Promise.allSettled(
    Array.from({ length: 10 }, (_, n) =>
      invoke(service, updateType, { type: { key: "news", displayName: `No. ${n}` }, revision: 1 }, call),
    ),
  );
  expect(results.filter((result) => result.status === "fulfilled")).toHaveLength(1);
  for (const result of results) {
    if (result.status === "rejected") expect(result.reason).toMatchObject({ reason: ErrorReason.ETAG_MISMATCH });
  }
  expect((await invoke(service, getType, { key: "news" }, call)).type?.revision).toBe(2);
});

test("an update of a missing type is refused, or creates it where that is allowed", async () => {
  const call = tenant();
  const type = { key: "news", displayName: "News" };
  expect((await faultOf(invoke(service, updateType, { type }, call))).reason).toBe(ErrorReason.NOT_FOUND);
  const stale = { type, allowMissing: true, revision: 3 };
  expect((await faultOf(invoke(service, updateType, stale, call))).reason).toBe(ErrorReason.ETAG_MISMATCH);
  const answers = await Promise.all(
    Array.from({ length: 8 }, () => invoke(service, updateType, { type, allowMissing: true }, call)),
  );
  expect(answers.map((answer) => answer.type?.revision)).toEqual(Array(8).fill(1));
  const mask = { paths: ["nickname"] };
  const unknown = await faultOf(invoke(service, updateType, { type, updateMask: mask }, call));
  expect(unknown.reason).toBe(ErrorReason.INVALID_FIELD_MASK);
  const nul = await faultOf(invoke(service, createType, { type: { key: "nul", displayName: "\0" } }, call));
  expect(nul).toEqual({ reason: ErrorReason.INVALID_REQUEST, fields: ["type.display_name"] });
});

test("types are listed in the order of keys, all or those of a category", async () => {
  const call = tenant();
  const keys = Array.from({ length: 11 }, (_, n) => `type-${String(n).padStart(2, "0")}`);
  for (const [n, key] of keys.entries()) {
    await invoke(service, createType, { type: { key, category: n % 2 === 0 ? "even" : "odd" } }, call);
  }
  const all = async (category: string) => {
    const found: string[] = [];
    for (let pageToken = "", first = true; first || pageToken !== ""; first = false) {
      const page = await invoke(service, listTypes, { category, pageSize: 4, pageToken }, call);
      found.push(...page.types.map((type) => type.key));
      pageToken = page.nextPageToken;
    }
    return found;
  };
  expect(await all("")).toEqual(keys);
  expect(await all("even")).toEqual(keys.filter((_, n) => n % 2 === 0));
});

test('"general" cannot be deleted', async () => {
  const call = tenant();
  await store.tenantDb(call.tenantId, (db) => insertTypes(db, call.tenantId, [GENERAL_DEFINITION], time.now));
  const refused = await faultOf(invoke(service, deleteType, { key: "general" }, call));
  expect(refused).toEqual({ reason: ErrorReason.INVALID_REQUEST, fields: ["key"] });
  expect((await invoke(service, getType, { key: "general" }, call)).type?.key).toBe("general");
});

test("what waits with a deleted type is suppressed, of every priority and status, and nothing else", async () => {
  const call = tenant();
  const { tenantId } = call;
  await invoke(service, createType, { type: { key: "news" } }, call);
  const priorities = [Priority.LOW, Priority.NORMAL, Priority.HIGH, Priority.CRITICAL];
  const open = [Status.ACCEPTED, Status.SCHEDULED, Status.HELD];
  const ended = [Status.DELIVERED, Status.READ, Status.FAILED, Status.EXPIRED, Status.CANCELLED];
  const all = (type: string, statuses: Status[]) =>
    priorities.flatMap((priority) => statuses.map((status) => ({ userId: "ann", type, status, priority })));
  const news = await wait(setup, tenantId, all("news", open));
  // More than one page of others between them.
  await wait(
    setup,
    tenantId,
    Array.from({ length: 2100 }, (_, n) => ({ userId: `u${n}`, type: "other" })),
  );
  const late = await wait(
    setup,
    tenantId,
    Array.from({ length: 30 }, (_, n) => ({ userId: `u${n}`, type: "news" })),
  );
  await wait(setup, tenantId, [...all("other", open), ...all("news", ended)]);

  await invoke(service, deleteType, { key: "news" }, call);
  await invoke(service, deleteType, { key: "news" }, call);

  const suppressed = await sql`
    select id, reason, due_at from notifications
    where tenant_id = ${tenantId} and status = ${Status.SUPPRESSED} order by id`;
  expect(suppressed.map((row) => row.id)).toEqual([...news, ...late]);
  expect(suppressed.every((row) => row.reason === Reason.TYPE_DELETED && row.due_at === null)).toBe(true);
  expect(await wrongSuppressions(sql, tenantId)).toEqual([]);
  expect(await sql`select count::int from counters where tenant_id = ${tenantId}`).toEqual([{ count: 42 }]);
  expect(await audited(tenantId)).toEqual(["type.create type:news", "type.delete type:news"]);
});

test.each([
  [Preset.TASKMASTER, 10, "TASK_DEADLINE"],
  [Preset.JOBS, 7, "job_match"],
  [Preset.CRM, 5, "LEAD_ASSIGNED"],
  [Preset.ORDERS, 3, "order_status"],
])("preset %i creates what the tenant does not have and leaves the rest", async (preset, size, key) => {
  const call = tenant();
  await invoke(service, createType, { type: { key, displayName: "Ours", category: "ours" } }, call);
  const first = await invoke(service, loadPreset, { preset }, call);
  expect(first.created).toBe(size - 1);
  expect(first.types).toHaveLength(size);
  expect(first.types.find((type) => type.key === key)).toMatchObject({ displayName: "Ours", category: "ours" });
  expect(await audited(call.tenantId)).toHaveLength(size);
  const second = await invoke(service, loadPreset, { preset }, call);
  expect(second).toEqual({ ...first, created: 0 });
});

test("presets loaded at once create each type once", async () => {
  const call = tenant();
  const answers = await Promise.all(
    Array.from({ length: 6 }, () => invoke(service, loadPreset, { preset: Preset.JOBS }, call)),
  );
  expect(answers.reduce((sum, answer) => sum + answer.created, 0)).toBe(7);
  expect(answers.map((answer) => answer.types.length)).toEqual(Array(6).fill(7));
});

test("a new type that must be asked for gives what the tenant has in common a new version, another does not", async () => {
  const call = tenant();
  const version = async () => {
    const rows = await sql`select xmin::text as version from default_preferences where tenant_id = ${call.tenantId}`;
    return rows[0]?.version;
  };
  await invoke(service, createType, { type: { key: "plain" } }, call);
  expect(await version()).toBeUndefined();
  await invoke(service, createType, { type: { key: "asked", optIn: true } }, call);
  const first = await version();
  expect(first).toBeDefined();
  await invoke(service, updateType, { type: { key: "upserted", optIn: true }, allowMissing: true }, call);
  expect(await version()).not.toBe(first);
});
