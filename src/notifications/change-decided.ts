import { Channel, Status } from "#gen/posthorn/v1/notification_pb.ts";
import { type ShownAnew, showAnew } from "#src/inbox/show-anew.ts";
import type { Tx } from "#src/store/store.ts";
import type { NotificationRow } from "./notification.ts";
import { type Changes, findNotifications } from "./queries.ts";
import { type Told, updateDecided } from "./update-decided.ts";

/** `updated`: with the inbox, where the user has an entry that shows it. `shown`: to be told to their streams. */
export type DecidedChange = Told & { shown: ShownAnew | undefined };

/**
 * Changes a notification that is decided, and that the transaction has locked, for what outside channels have not got of
 * it, and in its user's inbox. Undefined, and nothing changed, where nothing waits outside. Throws as `updateDecided`.
 */
export async function changeDecided(
  tx: Tx,
  tenantId: string,
  before: NotificationRow,
  changes: Changes,
  now: Date,
): Promise<DecidedChange | undefined> {
  const told = await updateDecided(tx, tenantId, before, changes, now);
  if (told === undefined) return undefined;
  const [after = before] = await findNotifications(tx, tenantId, [before.id]);
  const isShown = after.status !== Status.SCHEDULED && showsOther(before, after);
  const shown = isShown ? await showAnew(tx, { tenantId, userId: after.userId }, after, now) : undefined;
  return { ...told, updated: shown === undefined ? told.updated : [Channel.IN_APP, ...told.updated], shown };
}

/** Whether an entry shows something else than before. */
function showsOther(before: NotificationRow, after: NotificationRow): boolean {
  const entry = ({ content, tags, expiresAt }: NotificationRow) =>
    JSON.stringify([content && Buffer.from(content).toString("base64"), tags ?? [], expiresAt]);
  return entry(before) !== entry(after);
}
