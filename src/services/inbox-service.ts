import { timestampDate, timestampFromDate } from "@bufbuild/protobuf/wkt";
import { InboxService } from "#gen/posthorn/v1/inbox_service_pb.ts";
import type { Clock } from "#src/clock.ts";
import { notFound } from "#src/errors.ts";
import { countsOf, toCounts, toEntry, toGroupedEntry } from "#src/inbox/entry.ts";
import { filterKey, readFilter } from "#src/inbox/filter.ts";
import { type GroupedEntryRow, listGrouped } from "#src/inbox/grouped.ts";
import type { EntryChange, Inbox, Result } from "#src/inbox/inbox.ts";
import { entriesByNotification, listEntries, type Owner, readHeads } from "#src/inbox/queries.ts";
import { encodeEntries } from "#src/inbox/wire.ts";
import { targetUser } from "#src/rpc/access.ts";
import { type Call, EitherWay, type Service, service } from "#src/rpc/call.ts";
import type { PageTokens } from "#src/store/page-token.ts";
import type { Store, Tx } from "#src/store/store.ts";

export type InboxServiceDeps = {
  inbox: Inbox;
  store: Store;
  clock: Clock;
  pageTokens: PageTokens;
  /** A user looks at what came, now. */
  looked(tenantId: string, userId: string): void;
};

const DEFAULT_PAGE_SIZE = 20;

export function inboxService({ inbox, store, clock, pageTokens, looked }: InboxServiceDeps): Service {
  /** Only what users do themselves shows that they look. */
  const showsLook = (call: Call) => {
    if (call.principal.kind === "user") looked(call.tenantId, call.principal.userId);
  };
  const changing =
    (change: EntryChange | ((call: Call) => EntryChange)) =>
    async (request: { userId: string; notificationIds: string[] }, call: Call) =>
      answer(
        await inbox.change(
          owner(request, call),
          request.notificationIds,
          typeof change === "function" ? change(call) : change,
        ),
      );

  return service(InboxService, {
    async listEntries(request, call) {
      const of = owner(request, call);
      const filter = readFilter(request.filter);
      const { grouped } = request;
      const query = [of.tenantId, "ListEntries", of.userId, grouped, ...filterKey(filter)];
      const [beforeSeq] = pageTokens.open(query, request.pageToken) ?? [];
      const size = request.pageSize || DEFAULT_PAGE_SIZE;
      const page = {
        filter,
        beforeSeq: beforeSeq === undefined ? undefined : Number(beforeSeq),
        // One more than asked for tells whether there is a next page.
        limit: size + 1,
        now: clock(),
      };
      const list = async (tx: Tx): Promise<GroupedEntryRow[]> =>
        grouped ? listGrouped(tx, of, page) : (await listEntries(tx, of, page)).map((row) => ({ ...row, group: null }));
      // What is grouped is read in two steps.
      const read = grouped ? store.tenant : store.tenantAtOnce;
      const [rows, heads] = await read(of.tenantId, (tx) =>
        Promise.all([list(tx), readHeads(tx, of.tenantId, [of.userId])]),
      );
      const last = rows.length > size ? rows[size - 1] : undefined;
      const entries = rows.slice(0, size);
      const nextPageToken = last === undefined ? "" : pageTokens.seal(query, [last.seq]);
      const counts = countsOf(heads.get(of.userId));
      return new EitherWay(
        () => encodeEntries(entries, nextPageToken, counts),
        () => ({ entries: entries.map(toGroupedEntry), nextPageToken, counts }),
      );
    },

    async getEntry(request, call) {
      const of = owner(request, call);
      const [row] = await store.tenantAtOnce(of.tenantId, (tx) =>
        entriesByNotification(tx, of, [request.notificationId], clock()),
      );
      if (row === undefined) throw notFound("inbox_entry");
      return { entry: toEntry(row) };
    },

    async getCounts(request, call) {
      const of = owner(request, call);
      const heads = await store.tenantAtOnce(of.tenantId, (tx) => readHeads(tx, of.tenantId, [of.userId]));
      return { counts: toCounts(heads.get(of.userId)) };
    },

    markRead: changing((call) => {
      showsLook(call);
      return { kind: "read", actor: call.actor };
    }),
    markUnread: changing({ kind: "unread" }),
    archive: changing({ kind: "archive" }),
    unarchive: changing({ kind: "unarchive" }),
    unsnooze: changing({ kind: "unsnooze" }),
    deleteEntries: changing({ kind: "delete" }),

    async snooze(request, call) {
      // The contract requires snooze_time, and bounds it.
      const until = request.snoozeTime === undefined ? clock() : timestampDate(request.snoozeTime);
      return answer(await inbox.change(owner(request, call), request.notificationIds, { kind: "snooze", until }));
    },

    async confirmEntry(request, call) {
      showsLook(call);
      const { confirmedAt, head } = await inbox.confirm(owner(request, call), request.notificationId, call.actor);
      return { confirmTime: timestampFromDate(confirmedAt), counts: toCounts(head) };
    },

    async markSeen(request, call) {
      showsLook(call);
      const through = request.throughSequence === 0n ? undefined : request.throughSequence;
      return { counts: toCounts(await inbox.markSeen(owner(request, call), through)) };
    },

    async markAllRead(request, call) {
      showsLook(call);
      const filter = readFilter(request.filter);
      return answer(await inbox.markAllRead(owner(request, call), filter, call.actor, call.signal));
    },

    async clear(request, call) {
      const of = owner(request, call);
      const cleared = await inbox.clear(of, request.archivedOnly, call.signal);
      // Nothing is left to be looked at, so nothing is left unseen.
      return answer(request.archivedOnly ? cleared : { ...cleared, head: await inbox.markSeen(of, undefined) });
    },
  });
}

function owner(request: { userId: string }, call: Call): Owner {
  return { tenantId: call.tenantId, userId: targetUser(request, call) };
}

function answer({ changed, head }: Result) {
  return { changed, counts: toCounts(head) };
}
