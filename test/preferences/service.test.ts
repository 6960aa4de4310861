import type { MessageInitShape } from "@bufbuild/protobuf";
import { expect, test } from "vitest";
import { ErrorReason } from "#gen/posthorn/v1/error_pb.ts";
import { Priority } from "#gen/posthorn/v1/notification_pb.ts";
import {
  PreferenceLevel as Level,
  PreferencesService,
  type UpdatePreferencesRequestSchema,
} from "#gen/posthorn/v1/preferences_service_pb.ts";
import { NO_LIMITS } from "#src/limits/channel-day.ts";
import type { Call } from "#src/rpc/call.ts";
import { preferencesService } from "#src/services/preferences-service.ts";
import { fakeCall, userOf } from "../support/call.ts";
import { invoke } from "../support/invoke.ts";
import { onPostgres } from "../support/on-postgres.ts";
import { faultOf } from "../support/rejection.ts";

const { store, sql, clock, newId, invalidations, reconcile, reconcileReminders, pageTokens } = await onPostgres();
const told: unknown[][] = [];
const service = preferencesService({
  store,
  clock,
  newId,
  invalidations,
  reconcile,
  reconcileReminders,
  aboutToChange: async () => undefined,
  preferencesChanged: (...args) => told.push(args),
  membershipChanged: () => undefined,
  pageTokens,
  channelsPerDay: NO_LIMITS,
});
const method = PreferencesService.method;
const asUser = (tenantId = newId(), userId = "ann") => fakeCall({ tenantId, principal: userOf(tenantId, userId) });
const get = (call: Call, userId = "") => invoke(service, method.getPreferences, { userId }, call);
const update = (request: MessageInitShape<typeof UpdatePreferencesRequestSchema>, call: Call) =>
  invoke(service, method.updatePreferences, request, call);
const mask = (...paths: string[]) => ({ paths });
const audited = (call: Call) =>
  sql`select actor, action, target, reason from audit_entries where tenant_id = ${call.tenantId} order by id`;

test("what nobody has set is empty and has an etag that an update accepts", async () => {
  const call = asUser();
  const nothing = await get(call);
  expect(nothing).toMatchObject({ etag: "0", preferences: { types: {} } });
  expect(nothing.updateTime).toBeUndefined();
  const first = await update({ preferences: { enabled: false }, etag: nothing.etag }, call);
  expect(first.changedFields).toEqual(["enabled"]);
  const stored = await get(call);
  expect(stored).toMatchObject({ preferences: { enabled: false }, etag: first.etag });
  expect(stored.updateTime).toBeDefined();
});

test("an update changes what its mask names, clears what is absent there, and says what really changed", async () => {
  const call = asUser();
  await update(
    {
      preferences: {
        quietHours: { enabled: true, startTime: "21:00" },
        types: { job_match: { enabled: false, minimumPriority: Priority.HIGH }, "job-alert": { enabled: false } },
        weekendsEnabled: false,
      },
    },
    call,
  );
  const changed = await update(
    {
      preferences: {
        quietHours: { enabled: true, endTime: "07:00" },
        types: { job_match: { enabled: true } },
        doNotDisturb: { periods: [{ dayOfWeek: 1, startTime: "09:00", endTime: "10:00" }] },
        enabled: false,
      },
      updateMask: mask(
        "quiet_hours",
        "types.job_match.enabled",
        "types.job-alert",
        "do_not_disturb.periods",
        "minimum_priority",
      ),
    },
    call,
  );
  expect(changed.changedFields).toEqual([
    "do_not_disturb.periods",
    "quiet_hours.end_time",
    "quiet_hours.start_time",
    "types.job-alert.enabled",
    "types.job_match.enabled",
  ]);
  const { preferences } = await get(call);
  expect(preferences).toEqual(changed.preferences);
  expect(preferences?.enabled).toBeUndefined();
  expect(preferences?.weekendsEnabled).toBe(false);
  expect(preferences?.quietHours).toMatchObject({ enabled: true, endTime: "07:00" });
  expect(preferences?.quietHours?.startTime).toBeUndefined();
  expect(Object.keys(preferences?.types ?? {})).toEqual(["job_match"]);
  expect(preferences?.types.job_match).toMatchObject({ enabled: true, minimumPriority: Priority.HIGH });
});

test("an update without a mask leaves the rest of a nested message alone", async () => {
  const call = asUser();
  await update({ preferences: { quietHours: { enabled: true, startTime: "21:00" } } }, call);
  const { preferences } = await update({ preferences: { quietHours: { enabled: false } } }, call);
  expect(preferences?.quietHours).toMatchObject({ enabled: false, startTime: "21:00" });
});

test("an update that changes nothing keeps the etag, tells nobody and leaves no trace in the audit log", async () => {
  const call = asUser();
  const { etag } = await update({ preferences: { enabled: true } }, call);
  told.length = 0;
  const again = await update({ preferences: { enabled: true } }, call);
  expect(again).toMatchObject({ etag, changedFields: [] });
  const cleared = await update(
    { preferences: {}, updateMask: mask("types.none.enabled", "quiet_hours.enabled") },
    call,
  );
  expect(cleared).toMatchObject({ etag, changedFields: [] });
  expect(told).toEqual([]);
  expect(await audited(call)).toHaveLength(1);
});

test("a stale etag is refused, and of 20 who read the same one exactly one changes it", async () => {
  const call = asUser();
  const { etag } = await update({ preferences: { enabled: true } }, call);
  const race = await Promise.allSettled(
    Array.from({ length: 20 }, (_, n) =>
      update({ preferences: { quietHours: { startTime: `10:${10 + n}` } }, etag }, call),
    ),
  );
  expect(race.filter((each) => each.status === "fulfilled")).toHaveLength(1);
  const lost = race.filter((each) => each.status === "rejected");
  expect(new Set(lost.map((each) => each.reason.reason))).toEqual(new Set([ErrorReason.ETAG_MISMATCH]));
  expect((await audited(call)).length).toBe(2);
});

test("concurrent first updates without an etag all count", async () => {
  const call = asUser();
  await Promise.all(
    Array.from({ length: 20 }, (_, n) => update({ preferences: { types: { [`t${n}`]: { enabled: false } } } }, call)),
  );
  expect(Object.keys((await get(call)).preferences?.types ?? {})).toHaveLength(20);
});

test("an etag of a state before the user was deleted is not taken for a new one", async () => {
  const call = asUser();
  const { etag } = await update({ preferences: { enabled: true } }, call);
  await sql`delete from preferences where tenant_id = ${call.tenantId}`;
  await sql`insert into preferences (tenant_id, user_id, document, revision, updated_at)
    values (${call.tenantId}, 'ann', '{}', 1, now() + interval '1 second')`;
  expect(await faultOf(update({ preferences: { enabled: false }, etag }, call))).toMatchObject({
    reason: ErrorReason.ETAG_MISMATCH,
  });
});

test("an API key needs a reason, which the audit log keeps with the change", async () => {
  const call = fakeCall({ tenantId: newId() });
  const preferences = { enabled: false };
  const blank = update({ userId: "ann", preferences, reason: " " }, call);
  await expect(blank).rejects.toThrow("reason: is required of API keys");
  const refused = await faultOf(blank);
  expect(refused).toEqual({ reason: ErrorReason.INVALID_REQUEST, fields: ["reason"] });
  expect(await faultOf(invoke(service, method.resetPreferences, { userId: "ann" }, call))).toEqual(refused);
  await update({ userId: "ann", preferences, reason: "asked by phone" }, call);
  await invoke(service, method.resetPreferences, { userId: "ann", reason: "asked again" }, call);
  expect(await audited(call)).toEqual([
    { actor: call.actor, action: "preferences.update", target: "user:ann", reason: "asked by phone" },
    { actor: call.actor, action: "preferences.reset", target: "user:ann", reason: "asked again" },
  ]);
  expect(await faultOf(update({ userId: "ann", preferences, reason: "\0" }, call))).toEqual(refused);
});

test("a read by an API key is in the audit log, once for each call; the user's own is not", async () => {
  const key = fakeCall({ tenantId: newId() });
  const own = asUser(key.tenantId);
  await get(own);
  await invoke(service, method.getEffectivePreferences, {}, own);
  expect(await audited(key)).toEqual([]);
  await get(key, "ann");
  await invoke(service, method.getEffectivePreferences, { userId: "ann" }, key);
  const read = { actor: key.actor, action: "preferences.read", target: "user:ann", reason: "" };
  expect(await audited(key)).toEqual([read, read]);
});

test("the streams and caches are told of a change after it is committed", async () => {
  const call = asUser();
  told.length = 0;
  await update({ preferences: { channels: { inApp: false } } }, call);
  const nothing = { suppressed: 0, moved: 0, released: 0, rebatched: 0, unchanged: 0, added: 0, more: false };
  expect(told).toEqual([[call.tenantId, "ann", ["channels.in_app"], nothing]]);
  expect(invalidations.published).toContainEqual(["preferences", call.tenantId, "ann"]);
});

test("a reset forgets everything, with a new etag", async () => {
  const call = asUser();
  const { etag } = await update({ preferences: { enabled: false, types: { a: { enabled: false } } } }, call);
  told.length = 0;
  const reset = await invoke(service, method.resetPreferences, {}, call);
  expect(reset.etag).not.toBe(etag);
  expect(told).toMatchObject([[call.tenantId, "ann", ["enabled", "types.a.enabled"], { suppressed: 0 }]]);
  const { preferences, etag: now } = await get(call);
  expect(now).toBe(reset.etag);
  expect(preferences?.enabled).toBeUndefined();
  expect(preferences?.types).toEqual({});
});

test.each([
  ["a zone that does not exist", { timeZone: "Europe/Atlantis" }, "preferences.time_zone"],
  ["an offset", { timeZone: "GMT+5" }, "preferences.time_zone"],
  ["a malformed language", { language: "en-aa-bb-cc" }, "preferences.language"],
])("%s is refused", async (_, preferences, field) => {
  const call = asUser();
  expect(await faultOf(update({ preferences }, call))).toEqual({
    reason: ErrorReason.INVALID_REQUEST,
    fields: [field],
  });
  expect((await get(call)).etag).toBe("0");
});

test("many updates cannot add up to more types than one may have", async () => {
  const call = asUser();
  const types = (from: number) =>
    Object.fromEntries(Array.from({ length: 150 }, (_, n) => [`t${from + n}`, { enabled: false }]));
  await update({ preferences: { types: types(0) } }, call);
  expect((await faultOf(update({ preferences: { types: types(150) } }, call))).fields).toEqual(["preferences.types"]);
  await update({ preferences: { types: types(150) }, updateMask: mask("types") }, call);
});

test("an unknown path is refused", async () => {
  const refused = await faultOf(update({ preferences: {}, updateMask: mask("nothing") }, asUser()));
  expect(refused.reason).toBe(ErrorReason.INVALID_FIELD_MASK);
});

test("a user cannot name another", async () => {
  expect((await faultOf(get(asUser(), "bob"))).reason).toBe(ErrorReason.NOT_FOUND);
  const named = update({ userId: "bob", preferences: { enabled: false } }, asUser());
  expect((await faultOf(named)).reason).toBe(ErrorReason.NOT_FOUND);
});

test("effective values come from the tenant, the profile, the user, the category and the type", async () => {
  const key = fakeCall({ tenantId: newId() });
  const call = asUser(key.tenantId);
  const { tenantId } = call;
  await sql`insert into types (tenant_id, key, category, default_priority, default_channels, opt_in, revision, created_at, updated_at)
    values (${tenantId}, 'poll', 'social', 2, '{1}', true, 1, now(), now())`;
  await sql`insert into users (tenant_id, id, locale, time_zone, roles, created_at, updated_at)
    values (${tenantId}, 'ann', 'pt-BR', 'Europe/Lisbon', '{}', now(), now())`;
  const defaults = await invoke(
    service,
    method.updateDefaultPreferences,
    { preferences: { weekendsEnabled: false, timeZone: "Asia/Tokyo" }, reason: "we are in Tokyo" },
    key,
  );
  await update(
    { preferences: { quietHours: { enabled: true }, categories: { social: { minimumPriority: Priority.HIGH } } } },
    call,
  );
  const effective = (type = "") => invoke(service, method.getEffectivePreferences, { type }, call);
  const general = await effective();
  expect(general.preferences).toMatchObject({
    enabled: true,
    weekendsEnabled: false,
    timeZone: "Europe/Lisbon",
    language: "pt-BR",
    minimumPriority: Priority.LOW,
    quietHours: { enabled: true, startTime: "22:00" },
  });
  expect(general.origins).toMatchObject({
    enabled: Level.BUILT_IN,
    weekends_enabled: Level.TENANT,
    time_zone: Level.PROFILE,
    "quiet_hours.enabled": Level.USER,
  });
  const poll = await effective("poll");
  expect(poll.preferences).toMatchObject({ enabled: false, minimumPriority: Priority.HIGH });
  expect(poll.origins).toMatchObject({ enabled: Level.BUILT_IN, minimum_priority: Level.CATEGORY });
  expect((await faultOf(effective("unknown"))).reason).toBe(ErrorReason.NOT_FOUND);

  expect(await invoke(service, method.getDefaultPreferences, {}, key)).toEqual(
    expect.objectContaining({ etag: defaults.etag, preferences: defaults.preferences }),
  );
  const stale = invoke(
    service,
    method.updateDefaultPreferences,
    { preferences: { enabled: true }, etag: "0", reason: "why" },
    key,
  );
  expect((await faultOf(stale)).reason).toBe(ErrorReason.ETAG_MISMATCH);
  expect(await audited(key)).toContainEqual({
    actor: key.actor,
    action: "default_preferences.update",
    target: "default_preferences",
    reason: "we are in Tokyo",
  });
  const why = invoke(service, method.updateDefaultPreferences, { preferences: { enabled: true } }, key);
  expect(await faultOf(why)).toEqual({ reason: ErrorReason.INVALID_REQUEST, fields: ["reason"] });
});

test("one tenant's preferences are not another's", async () => {
  const mine = asUser();
  await update({ preferences: { enabled: false } }, mine);
  expect((await get(asUser())).etag).toBe("0");
});
