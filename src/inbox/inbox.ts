import type { MessageInitShape } from "@bufbuild/protobuf";
import { InboxFilter_View } from "#gen/posthorn/v1/inbox_service_pb.ts";
import { Status } from "#gen/posthorn/v1/notification_pb.ts";
import { InboxChanged_Change, type InboxChangedSchema } from "#gen/posthorn/v1/stream_service_pb.ts";
import type { Clock } from "#src/clock.ts";
import { confirm } from "#src/escalation/confirm.ts";
import { statusName } from "#src/notifications/names.ts";
import type { Store, Tx } from "#src/store/store.ts";
import type { Logger } from "#src/telemetry/logger.ts";
import type { Metrics } from "#src/telemetry/metrics.ts";
import { type Change, type Changed, changeEntries, findPlaces, moveSeen } from "./changes.ts";
import { type Head, toCounts } from "./entry.ts";
import { type EntryFilter, WHOLE_INBOX } from "./filter.ts";
import { type Fragment, matching, type Owner } from "./queries.ts";

export type InboxDeps = {
  store: Store;
  clock: Clock;
  metrics: Pick<Metrics, "confirmations" | "escalationsEnded">;
  log: Pick<Logger, "debug">;
  /** Counter slots of this process, taken in turn so that its own calls seldom wait for each other. */
  counterSlots: readonly number[];
  /** Tells the user's streams, after the commit. Must not throw. */
  inboxChanged: (tenantId: string, userId: string, event: MessageInitShape<typeof InboxChangedSchema>) => void;
  /** These notifications went from DELIVERED to READ at that time, for StatusChanged; after the commit. Must not throw. */
  notificationsRead: (tenantId: string, userId: string, notificationIds: readonly string[], at: Date) => void;
  /** The notification was confirmed at that time, for StatusChanged; after the commit. Must not throw. */
  notificationConfirmed: (tenantId: string, userId: string, id: string, status: Status, at: Date) => void;
};

/** How many entries changed, and the inbox after it: undefined for a user to whom nothing has arrived. */
export type Result = { changed: number; head: Head | undefined };

/** A change to named entries, as a caller asks for it. */
export type EntryChange = Exclude<Change, { kind: "read" }> | { kind: "read"; actor: string };

/**
 * Changes to inboxes, announced after their commit. All are idempotent: what is already as wanted is passed over and not
 * announced.
 */
export type Inbox = {
  /** Changes the entries of these notifications in one transaction. */
  change(owner: Owner, notificationIds: readonly string[], change: EntryChange): Promise<Result>;
  /** Marks everything up to a sequence as seen; undefined: everything. */
  markSeen(owner: Owner, through: bigint | undefined): Promise<Head | undefined>;
  /**
   * Marks read what matches now; what arrives meanwhile stays unread. Commits every 1,000 entries: when it is cut short
   * by the signal or a fault, what was done stays done, and a repeat does the rest.
   */
  markAllRead(owner: Owner, filter: EntryFilter, actor: string, signal: AbortSignal): Promise<Result>;
  /**
   * Confirms a notification and reads its entry, in one transaction; `also` is done in it as well, if it is this
   * confirmation that counts. Without `userId`: whosever it is. Throws as escalation/confirm.ts does.
   */
  confirm(
    who: { tenantId: string; userId?: string },
    notificationId: string,
    actor: string,
    also?: (tx: Tx) => Promise<unknown>,
  ): Promise<{ confirmedAt: Date; head: Head | undefined }>;
  /** Deletes all entries, or all archived ones, in the same way. */
  clear(owner: Owner, archivedOnly: boolean, signal: AbortSignal): Promise<Result>;
};

const ENTRIES_PER_TRANSACTION = 1000;

export function openInbox(deps: InboxDeps): Inbox {
  const { store, clock, counterSlots, metrics, log } = deps;
  let turn = 0;

  function inFull(change: EntryChange): Change {
    if (change.kind !== "read") return change;
    return { ...change, counterSlot: counterSlots[turn++ % counterSlots.length] ?? 0 };
  }

  function announceRead(
    owner: Owner,
    { becameRead, answered }: Pick<Changed, "becameRead" | "answered">,
    at: Date,
  ): void {
    if (becameRead.length > 0) deps.notificationsRead(owner.tenantId, owner.userId, becameRead, at);
    if (answered > 0) metrics.escalationsEnded.inc({ outcome: "read" }, answered);
  }

  function announceChange({ tenantId, userId }: Owner, kind: Change["kind"], done: Changed): void {
    const { notificationIds, head } = done;
    deps.inboxChanged(tenantId, userId, { change: ANNOUNCED[kind], notificationIds, counts: toCounts(head) });
  }

  /** Downwards from the newest entry at the start, so that new arrivals neither prolong it nor fall into it. */
  async function changeAll(
    owner: Owner,
    change: EntryChange,
    conditions: (tx: Tx) => Fragment,
    signal: AbortSignal,
  ): Promise<Result> {
    let changed = 0;
    let head: Head | undefined;
    let before: number | undefined;
    try {
      for (;;) {
        signal.throwIfAborted();
        const now = clock();
        const { places, ...step } = await store.tenant(owner.tenantId, async (tx) => {
          const places = await findPlaces(tx, owner, conditions(tx), before, ENTRIES_PER_TRANSACTION);
          return { places, ...(await changeEntries(tx, owner, { places }, inFull(change), now)) };
        });
        changed += step.notificationIds.length;
        head = step.head;
        announceRead(owner, step, now);
        if (places.length < ENTRIES_PER_TRANSACTION) return { changed, head };
        before = places.at(-1)?.seq;
      }
    } finally {
      if (changed > 0) {
        deps.inboxChanged(owner.tenantId, owner.userId, {
          change: ANNOUNCED[change.kind],
          all: true,
          counts: toCounts(head),
        });
      }
    }
  }

  return {
    async change(owner, notificationIds, change) {
      const now = clock();
      const done = await store.tenant(owner.tenantId, (tx) =>
        changeEntries(tx, owner, { notificationIds }, inFull(change), now),
      );
      announceRead(owner, done, now);
      if (done.notificationIds.length > 0) announceChange(owner, change.kind, done);
      return { changed: done.notificationIds.length, head: done.head };
    },
    async markSeen(owner, through) {
      const { moved, head } = await store.tenant(owner.tenantId, (tx) => moveSeen(tx, owner, through));
      if (moved && head !== undefined) {
        deps.inboxChanged(owner.tenantId, owner.userId, {
          change: InboxChanged_Change.SEEN,
          throughSequence: BigInt(head.seenSeq),
          counts: toCounts(head),
        });
      }
      return head;
    },
    markAllRead: (owner, filter, actor, signal) =>
      changeAll(owner, { kind: "read", actor }, (tx) => matching(tx, { ...filter, unreadOnly: true }), signal),
    async confirm({ tenantId, userId }, id, actor, also) {
      const now = clock();
      const { confirmed, ...done } = await store.tenant(tenantId, async (tx) => {
        const confirmed = await confirm(tx, tenantId, id, { userId, actor, now });
        if (confirmed.first) await also?.(tx);
        const owner = { tenantId, userId: confirmed.userId };
        const read = inFull({ kind: "read", actor });
        return { confirmed, ...(await changeEntries(tx, owner, { notificationIds: [id] }, read, now)) };
      });
      const owner = { tenantId, userId: confirmed.userId };
      announceRead(owner, done, now);
      if (done.notificationIds.length > 0) announceChange(owner, "read", done);
      const status = done.becameRead.length > 0 ? Status.READ : confirmed.status;
      if (confirmed.first) {
        deps.notificationConfirmed(tenantId, owner.userId, id, status, now);
        metrics.confirmations.inc();
        if (confirmed.escalated) metrics.escalationsEnded.inc({ outcome: "confirmed" });
        const about = { tenant: tenantId, user: owner.userId, notification: id, type: confirmed.type };
        log.debug({ ...about, status: statusName(status) }, "confirmed");
      }
      return { confirmedAt: confirmed.confirmedAt, head: done.head };
    },
    clear: (owner, archivedOnly, signal) =>
      changeAll(
        owner,
        { kind: "delete" },
        (tx) => matching(tx, { ...WHOLE_INBOX, view: archivedOnly ? InboxFilter_View.ARCHIVED : InboxFilter_View.ALL }),
        signal,
      ),
  };
}

const ANNOUNCED: Record<Change["kind"], InboxChanged_Change> = {
  read: InboxChanged_Change.READ,
  unread: InboxChanged_Change.UNREAD,
  archive: InboxChanged_Change.ARCHIVED,
  unarchive: InboxChanged_Change.UNARCHIVED,
  snooze: InboxChanged_Change.SNOOZED,
  unsnooze: InboxChanged_Change.UNSNOOZED,
  delete: InboxChanged_Change.DELETED,
};
