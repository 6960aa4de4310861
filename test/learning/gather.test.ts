import { expect, test } from "vitest";
import { PreferencesService } from "#gen/posthorn/v1/preferences_service_pb.ts";
import { UserService } from "#gen/posthorn/v1/user_service_pb.ts";
import { type Gathering, startGathering } from "#src/learning/gather.ts";
import { eraseLooks, findLooks, forgetLooks } from "#src/learning/queries.ts";
import { NO_LIMITS } from "#src/limits/channel-day.ts";
import { compile } from "#src/preferences/compile.ts";
import { readLevels } from "#src/preferences/queries.ts";
import { zoneClocks } from "#src/preferences/zone-clock.ts";
import { preferencesService } from "#src/services/preferences-service.ts";
import { userService } from "#src/services/user-service.ts";
import { fakeCall, userOf } from "../support/call.ts";
import { invoke } from "../support/invoke.ts";
import { onPostgres } from "../support/on-postgres.ts";

// What is gathered and written, by two processes, with a clock that the tests move.

const setup = await onPostgres();
const { store, sql, time, clock, newId, invalidations } = setup;
const membershipChanged = () => undefined;
const preferences = preferencesService({ ...setup, membershipChanged, channelsPerDay: NO_LIMITS });
const users = userService({ ...setup, membershipChanged });
const clockOf = zoneClocks();
const HOUR = 3_600_000;
const DAY = 24 * HOUR;
const failures: unknown[] = [];
time.now = new Date("2026-12-01T09:20:00Z");

/** Another process: it hears of nothing. */
const deaf = { on: () => ({ [Symbol.dispose]: () => undefined }) };

function gathering(
  hears: Parameters<typeof startGathering>[0]["invalidations"] = invalidations,
  maxUsers?: number,
): Gathering {
  const deps: Parameters<typeof startGathering>[0] = {
    ...{ store, clock, clockOf },
    invalidations: hears,
    loadPreferences: (tenantId, userIds) =>
      store.tenantDb(tenantId, async (db) => {
        const { levels } = await readLevels(db, tenantId, userIds);
        return new Map(userIds.map((userId) => [userId, compile(levels(userId), new Set(), clockOf)]));
      }),
    log: { warn: (...told: unknown[]) => void failures.push(told) },
  };
  return startGathering(deps, maxUsers);
}

const tenant = () => newId();
const as = (tenantId: string, userId: string) => fakeCall({ tenantId, principal: userOf(tenantId, userId) });
const learnt = async (tenantId: string, userId: string) =>
  (await store.tenantDb(tenantId, (db) => findLooks(db, tenantId, [userId])))[0];
const prefer = (tenantId: string, userId: string, wishes: object) =>
  invoke(preferences, PreferencesService.method.updatePreferences, { preferences: wishes }, as(tenantId, userId));

test("an hour counts once, whoever writes it, in the hour of the user's clock", async () => {
  const tenantId = tenant();
  await using a = gathering();
  await using b = gathering(deaf);
  await prefer(tenantId, "ann", { timeZone: "Asia/Kolkata" });
  for (const gatherer of [a, a, b]) {
    for (let n = 0; n < 1000; n++) gatherer.looked(tenantId, "ann");
    gatherer.looked(tenantId, "bob");
  }
  await Promise.all([a.flush(), b.flush()]);
  // 09:20 in London is 14:50 in India.
  const first = await learnt(tenantId, "ann");
  expect(first?.weights.flatMap((weight, cell) => (weight > 0 ? [[cell, weight]] : []))).toEqual([[14, 1]]);
  expect(first?.lastHour).toEqual(new Date("2026-12-01T08:30:00Z"));
  expect((await learnt(tenantId, "bob"))?.weights[9]).toBe(1);
  time.now = new Date(time.now.getTime() + 15 * 60_000); // 15:05 in India, 09:35 in London
  for (const userId of ["ann", "bob"]) a.looked(tenantId, userId);
  await a.flush();
  const [ann, bob] = [await learnt(tenantId, "ann"), await learnt(tenantId, "bob")];
  expect(ann?.weights[15]).toBeCloseTo(1, 2);
  expect(bob?.weights.reduce((all, each) => all + each)).toBe(1);
  time.now = new Date(time.now.getTime() + 28 * DAY);
  b.looked(tenantId, "ann");
  await b.flush();
  expect((await learnt(tenantId, "ann"))?.weights[15]).toBeCloseTo(3, 1);
  expect(failures).toEqual([]);
});

test("weekends count apart", async () => {
  const tenantId = tenant();
  await using gatherer = gathering();
  time.now = new Date("2026-12-05T09:20:00Z");
  gatherer.looked(tenantId, "ann");
  await gatherer.flush();
  expect((await learnt(tenantId, "ann"))?.weights[24 + 9]).toBe(1);
});

test("nobody is learnt from against their will, and what was learnt goes with it", async () => {
  const tenantId = tenant();
  await using gatherer = gathering();
  await prefer(tenantId, "ann", { timing: { learning: false } });
  for (const userId of ["ann", "bob"]) gatherer.looked(tenantId, userId);
  await gatherer.flush();
  expect(await learnt(tenantId, "ann")).toBeUndefined();
  expect(await learnt(tenantId, "bob")).toBeDefined();
  await prefer(tenantId, "bob", { timing: { intelligentTiming: false } });
  expect(await learnt(tenantId, "bob")).toBeDefined();
  await prefer(tenantId, "bob", { timing: { learning: false } });
  expect(await learnt(tenantId, "bob")).toBeUndefined();
  await prefer(tenantId, "bob", { timing: { learning: true } });
  gatherer.looked(tenantId, "bob");
  await gatherer.flush();
  expect(await learnt(tenantId, "bob")).toBeDefined();
});

test("what is being written while learning is switched off, or the user deleted, is not left behind", async () => {
  const tenantId = tenant();
  const ids = Array.from({ length: 30 }, (_, n) => `user-${n}`);
  await using gatherer = gathering(deaf);
  for (const userId of ids) gatherer.looked(tenantId, userId);
  await Promise.all([
    gatherer.flush(),
    ...ids.map((userId, n) =>
      n % 2 === 0
        ? prefer(tenantId, userId, { timing: { learning: false } })
        : invoke(users, UserService.method.deleteUser, { id: userId }, fakeCall({ tenantId })),
    ),
  ]);
  expect(await sql`select user_id from looks where tenant_id = ${tenantId}`).toEqual([]);
});

test("what a process has gathered of who is forgotten meanwhile is dropped", async () => {
  const tenantId = tenant();
  await using gatherer = gathering();
  gatherer.looked(tenantId, "ann");
  await invoke(preferences, PreferencesService.method.deleteLearntTiming, {}, as(tenantId, "ann"));
  await gatherer.flush();
  expect(await learnt(tenantId, "ann")).toBeUndefined();
});

test("a tenant's default switches it off, and what it has left behind goes with what is too old", async () => {
  const tenantId = tenant();
  await using gatherer = gathering();
  const all = ["ann", "bob", "old"];
  for (const userId of all) gatherer.looked(tenantId, userId);
  await gatherer.flush();
  await sql`update looks set last_hour = ${new Date(time.now.getTime() - 91 * DAY)}
    where tenant_id = ${tenantId} and user_id = 'old'`;
  await prefer(tenantId, "ann", { timing: { learning: true } });
  await invoke(
    preferences,
    PreferencesService.method.updateDefaultPreferences,
    { preferences: { timing: { learning: false } }, reason: "a test" },
    fakeCall({ tenantId }),
  );
  time.now = new Date(time.now.getTime() + 2 * HOUR);
  for (const userId of all) gatherer.looked(tenantId, userId);
  await gatherer.flush();
  const counts = async () =>
    Object.fromEntries(
      (await sql`select user_id, weights from looks where tenant_id = ${tenantId}`).map(({ user_id, weights }) => [
        user_id,
        weights.filter((each: number) => each > 0).length,
      ]),
    );
  expect(await counts()).toEqual({ ann: 2, bob: 1, old: 1 });
  while ((await forgetLooks(store, time.now, 90, 1)) > 0);
  expect(await counts()).toEqual({ ann: 2 });
});

test("it holds so many users and no more, and writes what it holds when it ends", async () => {
  const tenantId = tenant();
  {
    await using gatherer = gathering();
    for (let n = 0; n < 20_500; n++) gatherer.looked(tenantId, `user-${n}`);
  }
  const [found] = await sql<{ count: number }[]>`
    select count(*)::int as count from looks where tenant_id = ${tenantId}`;
  expect(found?.count).toBe(20_000);
}, 120_000);

test("one that is erased twice is erased once", async () => {
  const tenantId = tenant();
  await using gatherer = gathering();
  gatherer.looked(tenantId, "ann");
  await gatherer.flush();
  const erased = await Promise.all([1, 2].map(() => store.tenantDb(tenantId, (db) => eraseLooks(db, tenantId, "ann"))));
  expect(erased.sort()).toEqual([false, true]);
});

test("a process whose clock is years ahead leaves what is learnt as it is, and what it alone has seen gives way", async () => {
  const tenantId = tenant();
  await using right = gathering(deaf);
  await using ahead = gathering(deaf);
  const lookAt = async (gatherer: Gathering, at: Date, userIds: readonly string[]) => {
    time.now = at;
    for (const userId of userIds) gatherer.looked(tenantId, userId);
    await gatherer.flush();
    return Promise.all(userIds.map((userId) => learnt(tenantId, userId)));
  };
  // By the database's clock.
  const today = new Date();
  const inYears = (hours: number) => new Date(today.getTime() + 5 * 365 * DAY + hours * HOUR);
  const [known] = await lookAt(right, new Date(today.getTime() - 3 * HOUR), ["ann"]);
  expect(await lookAt(ahead, inYears(0), ["ann"])).toEqual([known]);
  const [fresh] = await lookAt(ahead, inYears(1), ["bob"]);
  expect(fresh?.lastHour.getTime()).toBeGreaterThan(today.getTime() + 4 * 365 * DAY);
  const [ann, bob] = await lookAt(right, today, ["ann", "bob"]);
  const sum = (weights: readonly number[] = []) => weights.reduce((all, each) => all + each, 0);
  expect(sum(ann?.weights)).toBeCloseTo(2, 1);
  expect(sum(bob?.weights)).toBe(1);
  expect([bob?.since, bob?.lastHour]).toEqual([ann?.lastHour, ann?.lastHour]);
});

test("a tenant whose users look by the thousand leaves others their share of what is gathered", async () => {
  const [flood, few, other] = [tenant(), tenant(), tenant()];
  const gatherer = gathering(deaf, 12);
  const users = (count: number) => Array.from({ length: count }, (_, n) => `user-${n}`);
  for (const userId of users(50)) gatherer.looked(flood, userId);
  for (const userId of users(2)) gatherer.looked(few, userId);
  for (const userId of users(50)) gatherer.looked(other, userId);
  for (const userId of users(3)) gatherer.looked(few, userId);
  await gatherer[Symbol.asyncDispose]();
  const written = async (tenantId: string) => {
    const found = await Promise.all(users(50).map((userId) => learnt(tenantId, userId)));
    return found.filter((each) => each !== undefined).length;
  };
  expect([await written(flood), await written(few), await written(other)]).toEqual([5, 3, 4]);
  expect(failures).toEqual([]);
});
