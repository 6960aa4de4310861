import { expect, test, vi } from "vitest";
import { changeEntries } from "#src/inbox/changes.ts";
import { expireEntries, releaseSnoozed } from "#src/inbox/release.ts";
import type { Tx } from "#src/store/store.ts";
import { inboxOnPostgres, TENANT } from "./setup.ts";

const { inbox, store, sql, time, user, deliver, head, list } = await inboxOnPostgres();

const lockHead = (tx: Tx, userId: string) =>
  tx`select 1 from inbox_heads where tenant_id = ${TENANT} and user_id = ${userId} for update`;
const lockNotification = (tx: Tx, id: string) =>
  tx`select 1 from notifications where tenant_id = ${TENANT} and id = ${id} for update`;

/** Shorter than Postgres takes to look for a deadlock, which the store would hide by trying again. */
const atOnce = (tx: Tx) => tx`set local lock_timeout = '300ms'`;

/** Comes back when one backend more than before waits for a lock. */
async function waiting(): Promise<void> {
  await vi.waitFor(
    async () => {
      const found = await sql`
        select 1 from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'`;
      expect(found.length).toBe(1);
    },
    { timeout: 5000, interval: 5 },
  );
}

test.each([
  ["read", { kind: "read", actor: "user:me" }],
  ["delete", { kind: "delete" }],
] as const)("%s waits for a notification without holding the head, as a delivery needs it next", async (_, change) => {
  const owner = user();
  const [id] = await deliver(owner, 1);
  let changing: Promise<{ changed: number }> | undefined;
  await store.tenant(TENANT, async (tx) => {
    await lockNotification(tx, id!);
    changing = inbox.change(owner, [id!], change);
    await waiting();
    await atOnce(tx);
    await lockHead(tx, owner.userId);
  });
  expect(await changing).toMatchObject({ changed: 1 });
});

test("a release and a sweep pass over notifications that somebody works on", async () => {
  const owner = user();
  const soon = new Date(time.now.getTime() + 1);
  const [snoozed] = await deliver(owner, [{}, { expiresAt: soon }]);
  const [expired] = (await list(owner)).map((row) => row.notificationId);
  await inbox.change(owner, [snoozed!], { kind: "snooze", until: soon });
  await store.tenant(TENANT, async (tx) => {
    await lockNotification(tx, snoozed!);
    await lockNotification(tx, expired!);
    expect(await releaseSnoozed({ store }, soon, 10)).toEqual([]);
    expect(await store.system((system) => expireEntries(system, soon, 10))).toMatchObject({ removed: 0, inboxes: [] });
  });
  expect(await releaseSnoozed({ store }, soon, 10)).toHaveLength(1);
  expect(await store.system((system) => expireEntries(system, soon, 10))).toMatchObject({ removed: 1 });
});

test("a release that waited for the head leaves alone what was brought back meanwhile", async () => {
  const owner = user();
  const soon = new Date(time.now.getTime() + 1);
  const ids = await deliver(owner, 2);
  await inbox.change(owner, ids, { kind: "snooze", until: soon });
  let releasing: ReturnType<typeof releaseSnoozed> | undefined;
  await store.tenant(TENANT, async (tx) => {
    await lockHead(tx, owner.userId);
    releasing = releaseSnoozed({ store }, soon, 10);
    await waiting();
    await atOnce(tx);
    await changeEntries(tx, owner, { notificationIds: [ids[0]!] }, { kind: "unsnooze" }, time.now);
  });
  expect(await releasing).toMatchObject([{ notificationId: ids[1], seq: 3 }]);
  expect(await head(owner)).toMatchObject({ seq: 3, total: 2, snoozed: 0 });
});

test("a sweep that waited for the head counts out what was archived meanwhile where it is now", async () => {
  const owner = user();
  const soon = new Date(time.now.getTime() + 1);
  const ids = await deliver(owner, [{ expiresAt: soon }, {}]);
  let sweeping: ReturnType<typeof expireEntries> | undefined;
  await store.tenant(TENANT, async (tx) => {
    await lockHead(tx, owner.userId);
    sweeping = store.system((system) => expireEntries(system, soon, 10));
    await waiting();
    await atOnce(tx);
    await changeEntries(tx, owner, { notificationIds: [ids[0]!] }, { kind: "archive" }, time.now);
  });
  expect(await sweeping).toMatchObject({ removed: 1, inboxes: [{ head: { unread: 1, total: 1, archived: 0 } }] });
});
