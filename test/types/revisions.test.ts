import { expect, test } from "vitest";
import { ErrorReason } from "#gen/posthorn/v1/error_pb.ts";
import { Priority } from "#gen/posthorn/v1/notification_pb.ts";
import { TypeService } from "#gen/posthorn/v1/type_service_pb.ts";
import { typeService } from "#src/services/type-service.ts";
import { insertTypes } from "#src/types/queries.ts";
import { GENERAL_DEFINITION } from "#src/types/type.ts";
import { invoke } from "../support/invoke.ts";
import { onPostgres } from "../support/on-postgres.ts";
import { platformOfTest } from "../support/platform.ts";
import { faultOf } from "../support/rejection.ts";

const setup = await onPostgres();
const { store, sql, time, invalidations, tenant } = setup;
const service = typeService(setup);
const { createType, getType, updateType, deleteType, loadPreset, listTypeRevisions } = TypeService.method;

const NAMED = { path: "display_name", before: '"News"', after: '"The news"' };

test("each revision tells who made it and what differs from the one before", async () => {
  const call = tenant();
  await invoke(service, createType, { type: { key: "news", displayName: "News" } }, call);
  time.now = new Date(time.now.getTime() + 60_000);
  const type = { key: "news", displayName: "The news", batching: { batchable: true, maxSize: 3 } };
  const updated = await invoke(service, updateType, { type }, { ...call, actor: "key:other" });
  const batched = { path: "batching", before: "", after: '{"batchable":true,"max_size":3}' };
  expect(updated.changes).toMatchObject([NAMED, batched]);
  expect(updated.created).toBe(false);
  await invoke(service, updateType, { type }, call);

  const { revisions, nextPageToken } = await invoke(service, listTypeRevisions, { key: "news" }, call);
  expect(nextPageToken).toBe("");
  expect(revisions.map(({ type, actor, changes }) => [type?.revision, actor, changes.length])).toEqual([
    [2, "key:other", 2],
    [1, call.actor, 0],
  ]);
  expect(revisions[0]?.changes).toEqual(updated.changes);
  expect(revisions[0]?.type).toEqual(updated.type);
  expect(revisions[1]?.type).toMatchObject({ displayName: "News", revision: 1 });
  const rows = await sql`select action, changes from audit_entries where tenant_id = ${call.tenantId} order by id`;
  expect(rows.map(({ action, changes }) => [action, changes])).toEqual([
    ["type.create", null],
    ["type.update", [NAMED, batched]],
  ]);
});

test("a type that is older than its revisions tells what it is, and what it was when it changes", async () => {
  const call = tenant();
  await store.tenantDb(call.tenantId, (db) => insertTypes(db, call.tenantId, [GENERAL_DEFINITION], time.now));
  const told = async () => {
    const { revisions } = await invoke(service, listTypeRevisions, { key: "general" }, call);
    return revisions.map(({ type, actor }) => [type?.revision, type?.defaultPriority, actor]);
  };
  expect(await told()).toEqual([[1, Priority.NORMAL, ""]]);
  await invoke(service, updateType, { type: { key: "general", defaultPriority: Priority.LOW } }, call);
  expect(await told()).toEqual([
    [2, Priority.LOW, call.actor],
    [1, Priority.NORMAL, ""],
  ]);
});

test("the newest hundred are kept and come in pages; concurrent changes leave none out", async () => {
  const call = tenant();
  await invoke(service, createType, { type: { key: "news" } }, call);
  const change = (n: number) => invoke(service, updateType, { type: { key: "news", displayName: `No. ${n}` } }, call);
  await Promise.all(Array.from({ length: 8 }, (_, n) => change(n)));
  for (let n = 8; n < 110; n++) await change(n);
  const found: (number | undefined)[] = [];
  for (let pageToken = "", first = true; first || pageToken !== ""; first = false) {
    const page = await invoke(service, listTypeRevisions, { key: "news", pageSize: 30, pageToken }, call);
    found.push(...page.revisions.map(({ type }) => type?.revision));
    pageToken = page.nextPageToken;
  }
  expect(found).toEqual(Array.from({ length: 100 }, (_, n) => 111 - n));
});

test("with the type its revisions go, and of one that is not there none are listed", async () => {
  const call = tenant();
  const missing = () => faultOf(invoke(service, listTypeRevisions, { key: "news" }, call));
  expect((await missing()).reason).toBe(ErrorReason.NOT_FOUND);
  await invoke(service, createType, { type: { key: "news", displayName: "News" } }, call);
  await invoke(service, updateType, { type: { key: "news", displayName: "The news" } }, call);
  await invoke(service, deleteType, { key: "news" }, call);
  expect((await missing()).reason).toBe(ErrorReason.NOT_FOUND);
  await invoke(service, createType, { type: { key: "news" } }, call);
  const { revisions } = await invoke(service, listTypeRevisions, { key: "news" }, call);
  expect(revisions.map(({ type, changes }) => [type?.revision, changes])).toEqual([[1, []]]);
});

test("presets begin a revision for each type they create", async () => {
  const call = tenant();
  await invoke(service, loadPreset, { preset: 4 }, call);
  const { revisions } = await invoke(service, listTypeRevisions, { key: "order_status" }, call);
  expect(revisions.map(({ actor }) => actor)).toEqual([call.actor]);
});

test("validate_only answers what would happen, or why not, and does nothing", async () => {
  const call = tenant();
  const type = { key: "news", displayName: "News" };
  const state = () => sql`
    select (select count(*) from audit_entries where tenant_id = ${call.tenantId})::int as audited,
      (select count(*) from type_revisions where tenant_id = ${call.tenantId})::int as revisions,
      (select max(revision) from types where tenant_id = ${call.tenantId}) as revision`;
  const published = invalidations.published.length;
  const would = await invoke(service, updateType, { type, allowMissing: true, validateOnly: true }, call);
  expect(would).toMatchObject({ created: true, changes: [], type: { ...type, revision: 1, category: "general" } });
  expect((await faultOf(invoke(service, getType, { key: "news" }, call))).reason).toBe(ErrorReason.NOT_FOUND);
  expect(invalidations.published).toHaveLength(published);
  await invoke(service, createType, { type }, call);

  const before = await state();
  const next = { ...type, displayName: "The news", optIn: true };
  const changed = await invoke(service, updateType, { type: next, validateOnly: true }, call);
  expect(changed.type).toMatchObject({ displayName: "The news", optIn: true, revision: 2 });
  expect(changed.changes.map(({ path }) => path)).toEqual(["display_name", "opt_in"]);
  expect(await state()).toEqual(before);
  const stale = { type: next, revision: 9, validateOnly: true };
  expect((await faultOf(invoke(service, updateType, stale, call))).reason).toBe(ErrorReason.ETAG_MISMATCH);
  const missing = { type: { key: "weather" }, validateOnly: true };
  expect((await faultOf(invoke(service, updateType, missing, call))).reason).toBe(ErrorReason.NOT_FOUND);
});

test("the audit log of a tenant shows what changed", async () => {
  const { types, admin } = (await platformOfTest()).key;
  await types.createType({ type: { key: "news", displayName: "News" } });
  await types.updateType({ type: { key: "news", displayName: "The news" } });
  const { entries } = await admin.listAuditEntries({ pageSize: 2 });
  expect(entries.map(({ action, changes }) => [action, changes])).toMatchObject([
    ["type.update", [NAMED]],
    ["type.create", []],
  ]);
});
