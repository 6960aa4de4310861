import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { InboxFilter_View } from "#gen/posthorn/v1/inbox_service_pb.ts";
import { type EntryFilter, WHOLE_INBOX } from "#src/inbox/filter.ts";
import { listGrouped } from "#src/inbox/grouped.ts";
import type { Owner } from "#src/inbox/queries.ts";
import { forgetGroups } from "#src/schedule/forget.ts";
import { arrive } from "../support/arrive.ts";
import { inboxOnPostgres, NEVER } from "./setup.ts";

const { store, sql, inbox, time, newId, user, deliver, list } = await inboxOnPostgres();

const MINUTE = 60_000;
const group = (key = "k", maxSize = 10, windowMs = 60 * MINUTE) => ({ key, maxSize, windowMs });
/** The group of each entry, oldest entry first. */
const groupsOf = async ({ tenantId, userId }: Owner) =>
  (
    await sql<{ group: number | null }[]>`select group_seq::int as group from inbox
      where tenant_id = ${tenantId} and user_id = ${userId} order by seq`
  ).map((row) => row.group);
const pageOf = (filter: Partial<EntryFilter> = {}, beforeSeq?: number, limit = 1000) => ({
  filter: { ...WHOLE_INBOX, ...filter },
  beforeSeq,
  limit,
  now: time.now,
});
const grouped = (owner: Owner, ...page: Parameters<typeof pageOf>) =>
  store.tenant(owner.tenantId, (tx) => listGrouped(tx, owner, pageOf(...page)));

describe("arrivals", () => {
  test("of one key form a group until it is full; others and those without a key are none of its business", async () => {
    const owner = user();
    await deliver(owner, [{ group: group("k", 3) }, {}, { group: group("other", 3) }]);
    await deliver(owner, [{ group: group("k", 3) }, { group: group("k", 3) }, { group: group("k", 3) }]);
    expect(await groupsOf(owner)).toEqual([1, null, 3, 1, 1, 6]);
  });

  test("after the window begin the next group, however many there were", async () => {
    const owner = user();
    await deliver(owner, [{ group: group() }]);
    time.now = new Date(time.now.getTime() + 60 * MINUTE - 1);
    await deliver(owner, [{ group: group() }]);
    time.now = new Date(time.now.getTime() + 1);
    await deliver(owner, [{ group: group() }]);
    expect(await groupsOf(owner)).toEqual([1, 1, 3]);
  });

  test("go by what their user wants now: a group that is larger than that is closed", async () => {
    const owner = user();
    await deliver(owner, [{ group: group("k", 10) }, { group: group("k", 10) }, { group: group("k", 10) }]);
    await deliver(owner, [{ group: group("k", 2) }, { group: group("k", 2) }, { group: group("k", 2) }]);
    await deliver(owner, [{ group: group("k", 10) }]);
    expect(await groupsOf(owner)).toEqual([1, 1, 1, 4, 4, 6, 6]);
  });

  test("are assigned as one by one, in whatever chunks they come", async () => {
    const arrival = fc.record({
      who: fc.nat(1),
      key: fc.constantFrom(undefined, "a", "b"),
    });
    const step = fc.record({ arrivals: fc.array(arrival, { minLength: 1, maxLength: 12 }), minutes: fc.nat(3) });
    await fc.assert(
      fc.asyncProperty(
        fc.array(step, { minLength: 1, maxLength: 6 }),
        fc.integer({ min: 1, max: 5 }),
        async (steps, max) => {
          const owners = [user(), user()];
          const open = new Map<string, { seq: number; size: number; openedAt: number }>();
          const model: (number | null)[][] = [[], []];
          for (const { arrivals, minutes } of steps) {
            time.now = new Date(time.now.getTime() + minutes * MINUTE);
            const rows = arrivals.map(({ who, key }) => ({
              userId: owners[who]!.userId,
              ...(key === undefined ? {} : { group: group(key, max, 5 * MINUTE) }),
            }));
            await arrive({ store, newId, now: time.now }, owners[0]!.tenantId, rows);
            for (const { who, key } of arrivals) {
              const entries = model[who]!;
              const seq = entries.length + 1;
              if (key === undefined) {
                entries.push(null);
                continue;
              }
              const known = open.get(`${who} ${key}`);
              const goesOn = known && known.size < max && time.now.getTime() < known.openedAt + 5 * MINUTE;
              const joined = goesOn ? known : { seq, size: 0, openedAt: time.now.getTime() };
              joined.size++;
              open.set(`${who} ${key}`, joined);
              entries.push(joined.seq);
            }
          }
          expect(await Promise.all(owners.map(groupsOf))).toEqual(model);
        },
      ),
      { numRuns: 40 },
    );
  });

  test("that race for the last places leave no group too large, and none but the last with room", async () => {
    const owner = user();
    const now = time.now;
    await Promise.all(
      Array.from({ length: 40 }, (_, n) =>
        arrive({ store, newId, now }, owner.tenantId, [
          ...Array.from({ length: 1 + (n % 3) }, () => ({ userId: owner.userId, group: group("k", 4) })),
          { userId: owner.userId },
        ]),
      ),
    );
    const sizes = await sql<{ size: number; first: number; group: number }[]>`
      select count(*)::int as size, min(seq)::int as first, group_seq::int as group from inbox
      where user_id = ${owner.userId} and group_seq is not null group by group_seq order by group_seq`;
    expect(sizes.map(({ first }) => first)).toEqual(sizes.map((row) => row.group));
    expect(sizes.slice(0, -1).every(({ size }) => size === 4)).toBe(true);
    expect(sizes.reduce((sum, { size }) => sum + size, 0)).toBe(79);
  });
});

describe("a grouped list", () => {
  test('can say "Ann and 3 others"', async () => {
    const owner = user();
    const senders = ["cleo", "ann", "bob", "cleo", "dora", "ann"];
    const ids = await deliver(
      owner,
      senders.map((sender) => ({ sender, group: group("comments:7") })),
    );
    await deliver(owner, [{ sender: "eve" }]);
    await inbox.change(owner, ids.slice(0, 2), { kind: "read", actor: "a" });
    const [alone, head] = await grouped(owner);
    expect(alone).toMatchObject({ seq: 7, group: null });
    expect(head).toMatchObject({
      seq: 6,
      notificationId: ids[5],
      group: {
        ...{ key: "comments:7", size: 6, unread: 4, firstSeq: 1 },
        ...{ senders: ["ann", "dora", "cleo"], senderCount: 4 },
      },
    });
    expect((await list(owner, { group: 1 })).map(({ seq }) => seq)).toEqual([6, 5, 4, 3, 2, 1]);
  });

  test("comes back from a snooze without the entry that stood for the group, until it is there again", async () => {
    const owner = user();
    const ids = await deliver(owner, [{ group: group() }, { group: group() }]);
    const until = new Date(time.now.getTime() + MINUTE);
    await inbox.change(owner, [ids[1]!], { kind: "snooze", until });
    expect(await grouped(owner)).toMatchObject([{ seq: 1, group: { size: 1 } }]);
    expect(await grouped(owner, { view: InboxFilter_View.SNOOZED })).toMatchObject([{ seq: 2, group: { size: 1 } }]);
    await inbox.change(owner, [ids[1]!], { kind: "unsnooze" });
    expect(await grouped(owner)).toMatchObject([{ seq: 2, group: { size: 2 } }]);
  });

  test("is the list with each group at its newest that matches, whatever was done with the entries", async () => {
    const key = fc.option(fc.constantFrom("a", "b"), { nil: undefined });
    const entry = fc.record({
      key,
      type: fc.constantFrom("t", "u"),
      done: fc.constantFrom("nothing", "read", "archive", "delete", "expire"),
    });
    const filter = fc.constantFrom<Partial<EntryFilter>>(
      {},
      { unreadOnly: true },
      { view: InboxFilter_View.ARCHIVED },
      { view: InboxFilter_View.ALL, types: ["u"] },
    );
    await fc.assert(
      fc.asyncProperty(
        fc.array(entry, { minLength: 1, maxLength: 14 }),
        filter,
        fc.integer({ min: 1, max: 4 }),
        async (all, where, size) => {
          const owner = user();
          const expiresAt = new Date(time.now.getTime() + MINUTE);
          const ids = await deliver(
            owner,
            all.map((each) => ({
              type: each.type,
              ...(each.key === undefined ? {} : { group: group(each.key, 4) }),
              ...(each.done === "expire" ? { expiresAt } : {}),
            })),
          );
          for (const kind of ["read", "archive", "delete"] as const) {
            const these = ids.filter((_, index) => all[index]?.done === kind);
            if (these.length > 0) await inbox.change(owner, these, kind === "read" ? { kind, actor: "a" } : { kind });
          }
          time.now = expiresAt;
          const rows = await list(owner, where);
          const named = await sql<{ seq: number; group: number | null }[]>`
          select seq::int, group_seq::int as group from inbox where user_id = ${owner.userId}`;
          const groupOf = new Map(named.map((row) => [row.seq, row.group]));
          const heads = Map.groupBy(rows, ({ seq }) => groupOf.get(seq) ?? `alone ${seq}`);
          const expected = [...heads].map(([name, [head, ...others]]) => ({
            seq: head!.seq,
            size: typeof name === "number" ? others.length + 1 : undefined,
          }));
          const got = [];
          for (let before: number | undefined; ; ) {
            const page = await grouped(owner, where, before, size);
            got.push(...page.map(({ seq, group: of }) => ({ seq, size: of?.size })));
            before = page.at(-1)?.seq;
            if (page.length < size) break;
          }
          expect(got).toEqual(expected);
        },
      ),
      { numRuns: 60 },
    );
  });
});

test("groups that take in nothing more are forgotten, and their entries stay together", async () => {
  const owner = user();
  await deliver(owner, [{ group: group() }, { group: group() }]);
  const left = () => sql`select from inbox_groups where user_id = ${owner.userId}`;
  await forgetGroups(store, new Date(time.now.getTime() + 47 * 60 * MINUTE), 1000);
  expect(await left()).toHaveLength(1);
  await forgetGroups(store, new Date(time.now.getTime() + 49 * 60 * MINUTE), 1000);
  expect(await left()).toHaveLength(0);
  expect(await grouped(owner)).toMatchObject([{ group: { size: 2 } }]);
  await deliver(owner, [{ group: group() }]);
  expect(await groupsOf(owner)).toEqual([1, 1, 3]);
  await inbox.clear(owner, false, NEVER);
  expect(await grouped(owner)).toEqual([]);
});
