import { Status } from "#gen/posthorn/v1/notification_pb.ts";
import type { Store } from "#src/store/store.ts";
import type { NotificationRow, TimelineRow } from "./notification.ts";
import { findNotifications, readTimeline } from "./queries.ts";

export type Decided = { row: NotificationRow; timeline: TimelineRow[] };

const FIRST_LOOK_MS = 4;
const LONGEST_PAUSE_MS = 100;

/**
 * Waits until notifications are no longer ACCEPTED, for at most `ms`. Returns what is known then, decided or not. Looks
 * again and again with growing pauses: a decision is usually there after a few milliseconds.
 */
export async function waitForDecisions(
  store: Store,
  tenantId: string,
  ids: readonly string[],
  ms: number,
  signal: AbortSignal,
): Promise<Map<string, Decided>> {
  const deadline = performance.now() + ms;
  for (let pause = FIRST_LOOK_MS; ; pause = Math.min(pause * 2, LONGEST_PAUSE_MS)) {
    const left = deadline - performance.now();
    if (left > 0) await new Promise((resolve) => setTimeout(resolve, Math.min(pause, left)));
    signal.throwIfAborted();
    const rows = await store.tenant(tenantId, (tx) => findNotifications(tx, tenantId, ids));
    if (left > pause && rows.some((row) => row.status === Status.ACCEPTED)) continue;
    return store.tenant(tenantId, async (tx) => {
      const timelines = await Promise.all(rows.map((row) => readTimeline(tx, tenantId, row.id)));
      return new Map(rows.map((row, index) => [row.id, { row, timeline: timelines[index] ?? [] }]));
    });
  }
}
