import { expect, test } from "vitest";
import { InboxFilter_View } from "#gen/posthorn/v1/inbox_service_pb.ts";
import { expireEntries, releaseSnoozed } from "#src/inbox/release.ts";
import { inboxOnPostgres, OTHER_TENANT } from "./setup.ts";

const { inbox, store, sql, time, user, deliver, head, list } = await inboxOnPostgres();

const HOUR = 3_600_000;
const in1Hour = () => new Date(time.now.getTime() + HOUR);
const later = (ms: number) => {
  time.now = new Date(time.now.getTime() + ms);
};
const release = (limit = 100) => releaseSnoozed({ store }, time.now, limit);
const sweep = (limit = 100) => store.system((tx) => expireEntries(tx, time.now, limit));

test("a snoozed entry comes back as a new arrival: at the top, unread, with the next sequence", async () => {
  const owner = user();
  const ids = await deliver(owner, 3);
  await inbox.change(owner, [ids[0]!], { kind: "read", actor: "user:me" });
  await inbox.change(owner, [ids[0]!, ids[1]!], { kind: "snooze", until: in1Hour() });
  expect(await release()).toEqual([]);
  const delivered = await sql`select delivered_at from notifications where id = ${ids[0]!}`;

  later(HOUR);
  const back = await release();

  expect(back).toMatchObject([
    { ...owner, notificationId: ids[0], seq: 4, head: { seq: 5, unread: 3, total: 3, snoozed: 0 } },
    { ...owner, notificationId: ids[1], seq: 5 },
  ]);
  const rows = await list(owner);
  expect(rows.map((row) => row.seq)).toEqual([5, 4, 3]);
  expect(rows[1]).toMatchObject({ arrivedAt: time.now, readAt: null, snoozedUntil: null, notificationId: ids[0] });
  expect(await sql`select delivered_at from notifications where id = ${ids[0]!}`).toEqual(delivered);
  // It is found by its notification as before, and what is READ stays so without a second word.
  expect(await inbox.change(owner, ids, { kind: "read", actor: "user:me" })).toMatchObject({ changed: 3 });
  expect(await release()).toEqual([]);
});

test("two releasers and the user's own change bring an entry back once", async () => {
  const owners = Array.from({ length: 8 }, (_, i) => user(i % 2 === 0 ? undefined : OTHER_TENANT));
  const ids = await Promise.all(owners.map((owner) => deliver(owner, 20)));
  await Promise.all(owners.map((owner, i) => inbox.change(owner, ids[i]!, { kind: "snooze", until: in1Hour() })));
  later(HOUR);

  const drain = async () => {
    const back = [];
    for (let step = await release(7); step.length > 0; step = await release(7)) back.push(...step);
    return back;
  };
  const [, , ...unsnoozed] = await Promise.all([
    drain(),
    drain(),
    ...owners.map((owner, i) => inbox.change(owner, ids[i]!.slice(0, 10), { kind: "unsnooze" })),
  ]);
  await drain();

  for (const [i, owner] of owners.entries()) {
    const rows = await list(owner);
    expect(rows.map((row) => row.notificationId).sort()).toEqual([...ids[i]!].sort());
    // Each was unsnoozed in its place or came back with a sequence of its own: together all of them.
    const changed = (unsnoozed[i] as { changed: number }).changed;
    expect(await head(owner)).toMatchObject({ unread: 20, total: 20, snoozed: 0, seq: 20 + (20 - changed) });
    const fresh = rows.map((row) => row.seq).filter((seq) => seq > 20);
    expect(fresh).toEqual(Array.from({ length: 20 - changed }, (_, k) => 40 - changed - k));
  }
});

test("a release takes the longest overdue first and no more than asked for", async () => {
  const owner = user();
  const ids = await deliver(owner, 3);
  for (const [i, id] of ids.entries()) {
    await inbox.change(owner, [id], { kind: "snooze", until: new Date(time.now.getTime() + (3 - i) * HOUR) });
  }
  later(3 * HOUR);
  expect((await release(2)).map((each) => each.notificationId).sort()).toEqual([ids[1], ids[2]].sort());
  expect((await release(2)).map((each) => each.notificationId)).toEqual([ids[0]]);
});

test("expired entries are left out at once and leave the counts with the sweep", async () => {
  const [owner, other] = [user(), user(OTHER_TENANT)];
  const soon = { expiresAt: in1Hour() };
  const ids = await deliver(owner, [
    soon,
    {},
    soon,
    soon,
    soon,
    { expiresAt: new Date(time.now.getTime() + 2 * HOUR) },
  ]);
  await deliver(other, [soon]);
  await inbox.change(owner, [ids[2]!], { kind: "archive" });
  await inbox.change(owner, [ids[3]!], { kind: "snooze", until: in1Hour() });
  await inbox.change(owner, [ids[4]!], { kind: "read", actor: "user:me" });

  later(HOUR);
  expect((await list(owner, { view: InboxFilter_View.ALL })).map((row) => row.seq)).toEqual([6, 2]);
  expect(await head(owner)).toMatchObject({ unread: 3, total: 4, archived: 1, snoozed: 1 });
  expect(await release()).toEqual([]);

  const swept = await Promise.all([sweep(3), sweep(3)]);
  const last = await sweep();
  expect(swept[0].removed + swept[1].removed + last.removed).toBe(5);
  expect(await head(owner)).toMatchObject({ unread: 2, total: 2, archived: 0, snoozed: 0, seq: 6 });
  expect(await head(other)).toMatchObject({ unread: 0, total: 0 });
  const inboxes = [...swept, last].flatMap((each) => each.inboxes);
  expect(inboxes).toContainEqual({ ...other, head: await head(other) });
  expect(inboxes).toContainEqual({ ...owner, head: await head(owner) });
  expect(await sweep()).toEqual({ removed: 0, inboxes: [] });
});
