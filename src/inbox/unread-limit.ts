import type { Store } from "#src/store/store.ts";
import type { Arrival } from "#src/stream/arrival.ts";
import type { Inbox } from "./inbox.ts";

/** Entries archived at once; what is left over goes with the next arrival. */
const AT_ONCE = 500;

/**
 * Keeps inboxes from growing without end for users who never look: where an arrival has brought the unread entries above
 * `maxUnread`, the oldest of them are archived. Call it with what arrived, after the commit. Best effort: what a fault
 * keeps from it is done with the user's next arrival.
 */
export function unreadLimit(
  deps: { store: Store; inbox: Inbox },
  maxUnread: number,
): (tenantId: string, arrivals: readonly Arrival[]) => Promise<void> {
  return async (tenantId, arrivals) => {
    const over = new Map<string, number>();
    for (const { userId, counts } of arrivals)
      if (counts.unread > maxUnread) over.set(userId, counts.unread - maxUnread);
    for (const [userId, excess] of over) {
      const oldest = await deps.store.tenant(
        tenantId,
        (tx) => tx<{ id: string }[]>`
          select notification_id as id from inbox
          where tenant_id = ${tenantId} and user_id = ${userId}
            and read_at is null and archived_at is null and snoozed_until is null
          order by seq limit ${Math.min(excess, AT_ONCE)}`,
      );
      const ids = oldest.map((row) => row.id);
      await deps.inbox.change({ tenantId, userId }, ids, { kind: "archive" });
    }
  };
}
