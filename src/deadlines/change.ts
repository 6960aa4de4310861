import type { NewId } from "#src/ids.ts";
import type { ShownAnew } from "#src/inbox/show-anew.ts";
import { type By, type Cancelled, cancelByIds } from "#src/notifications/cancel.ts";
import { changeDecided } from "#src/notifications/change-decided.ts";
import { findNotifications, recordScheduled, updateOpen } from "#src/notifications/queries.ts";
import type { Tx } from "#src/store/store.ts";
import { type DeadlineDefinition, type DeadlineRow, isSame, isSameKind } from "./deadline.ts";
import { plan, type Reminder } from "./plan.ts";
import { changeDeadline, findDeadline, lockDeadline, lockReminders, removeDeadline } from "./queries.ts";

/** What a deadline's reminders are made of, prepared before the transaction. */
export type ReminderKind = {
  /** How long before, in ms, the longest first. */
  offsetsMs: readonly number[];
  /** When a reminder that is due at an instant loses its worth: at the deadline at the latest. */
  expiresAt(dueAt: Date): Date;
  /** Stores reminders as SCHEDULED notifications. */
  insert(tx: Tx, reminders: readonly { id: string; dueAt: Date }[], by: By): Promise<void>;
};

/** As it is now; and what is to be told to its user's streams after the commit. */
export type ChangedDeadline = {
  row: DeadlineRow;
  isNew: boolean;
  cancelled: Cancelled[];
  /** Reminders that wait for another time. */
  scheduled: { id: string; userId: string; dueAt: Date }[];
  /** Reminders that are in the inbox and show something else. */
  shown: ShownAnew[];
};

/**
 * Makes a deadline what is asked for, and its reminders with it, in the caller's transaction. Locks the deadline, then its
 * notifications in the order of their ids. A reminder that is being delivered at this moment is either moved or delivered.
 * What has been decided for the former time is stopped where outside channels have not got it, and what has come stays.
 * What has been decided for the same time gets the new content there, and in the inbox.
 */
export async function upsertDeadline(
  tx: Tx,
  tenantId: string,
  wanted: DeadlineDefinition,
  kind: ReminderKind,
  newId: NewId,
  by: By,
): Promise<ChangedDeadline> {
  const { row, isNew } = await lockDeadline(tx, tenantId, wanted, by.now);
  const changes = plan(row.reminders, wanted.at.getTime(), kind.offsetsMs, by.now.getTime());
  const settled = changes.move.length + changes.create.length + changes.cancel.length === 0;
  if (!isNew && settled && isSame(row, wanted)) return { row, isNew, cancelled: [], scheduled: [], shown: [] };

  const {
    open,
    outside,
    cancelled: ended,
  } = await lockReminders(
    tx,
    tenantId,
    row.reminders.map(({ id }) => id),
  );
  const same = isSameKind(row, wanted);
  const reminders: Reminder[] = [];
  const missing = [...changes.create];
  const moved: Reminder[] = [];
  const touched: Reminder[] = [];
  const obsolete = changes.cancel.map(({ id }) => id);
  const unmoved = [...changes.keep, ...changes.overdue.filter(({ id }) => open.has(id))];
  // Decided for the former time: what outside channels have not got of them would say it.
  const late = [...changes.move.map(({ reminder }) => reminder), ...changes.overdue].filter(({ id }) => !open.has(id));
  obsolete.push(...late.map(({ id }) => id));
  const stay = [...unmoved.map((reminder) => ({ reminder, dueAt: reminder.dueAt })), ...changes.move];
  const now = by.now.getTime();
  // Whoever cancelled one wants none at this offset, wherever the deadline moves.
  const offsets = new Set(kind.offsetsMs);
  const isUnwanted = ({ id, offsetMs }: Reminder) => ended.has(id) && offsets.has(offsetMs);
  for (const reminder of row.reminders.filter(isUnwanted))
    reminders.push({ ...reminder, dueAt: wanted.at.getTime() - reminder.offsetMs });
  for (const { reminder, dueAt } of stay.filter(({ reminder }) => !isUnwanted(reminder))) {
    const isOpen = open.has(reminder.id);
    const moves = dueAt !== reminder.dueAt;
    if (isOpen && same) (moves ? moved : touched).push({ ...reminder, dueAt });
    else if (isOpen) obsolete.push(reminder.id);
    if (isOpen ? same : !moves) reminders.push({ ...reminder, dueAt });
    else if (dueAt > now) missing.push({ offsetMs: reminder.offsetMs, dueAt });
    // It was due but is held back: what takes its place is due at once.
    else if (isOpen && now < wanted.at.getTime()) missing.push({ offsetMs: reminder.offsetMs, dueAt: now });
  }
  // Nobody has got it yet, and the time for it is past: what takes its place is due at once.
  for (const { id, offsetMs } of changes.overdue) if (outside.has(id)) missing.push({ offsetMs, dueAt: now });
  const made = missing.map((each) => ({ ...each, id: newId() }));
  reminders.push(...made);

  const isReworded = same && !Buffer.from(row.content).equals(wanted.content);
  const decided = isReworded ? changes.keep.filter(({ id }) => !open.has(id)) : [];
  const shown = await reword(tx, tenantId, decided, wanted.content, by.now);

  // In the order of the statuses they count: counters are locked in that order, here as elsewhere.
  await kind.insert(
    tx,
    made.map(({ id, dueAt }) => ({ id, dueAt: new Date(dueAt) })),
    by,
  );
  const update = (dueAt: number) => ({ content: wanted.content, expiresAt: kind.expiresAt(new Date(dueAt)) });
  for (const { id, dueAt } of touched) await updateOpen(tx, tenantId, id, update(dueAt), by.now);
  for (const { id, dueAt } of moved) {
    await updateOpen(tx, tenantId, id, { ...update(dueAt), scheduledAt: new Date(dueAt) }, by.now);
    await recordScheduled(tx, tenantId, { id, type: wanted.type }, by);
  }
  const cancelled = await cancelByIds(tx, tenantId, obsolete, by);
  reminders.sort((a, b) => b.offsetMs - a.offsetMs);
  await changeDeadline(tx, tenantId, wanted, { reminders, revision: isNew ? 1 : row.revision + 1 }, by.now);
  const after = await findDeadline(tx, tenantId, wanted.userId, wanted.key);
  if (after === undefined) throw new Error("a locked deadline is gone");
  const scheduled = moved.map(({ id, dueAt }) => ({ id, userId: wanted.userId, dueAt: new Date(dueAt) }));
  return { row: after, isNew, cancelled, scheduled, shown };
}

/** Gives those that are decided, and that the transaction has locked, other content where outside channels have not got it. */
async function reword(
  tx: Tx,
  tenantId: string,
  reminders: readonly Reminder[],
  content: Uint8Array,
  now: Date,
): Promise<ShownAnew[]> {
  if (reminders.length === 0) return [];
  const ids = reminders.map(({ id }) => id);
  const all: ShownAnew[] = [];
  for (const before of await findNotifications(tx, tenantId, ids)) {
    const { shown } = (await changeDecided(tx, tenantId, before, { content }, now)) ?? {};
    if (shown !== undefined) all.push(shown);
  }
  return all;
}

/** Deletes a deadline and cancels those of its reminders that are not delivered yet. */
export async function deleteDeadline(
  tx: Tx,
  tenantId: string,
  { userId, key }: { userId: string; key: string },
  by: By,
): Promise<Cancelled[]> {
  const row = await removeDeadline(tx, tenantId, userId, key);
  if (row === undefined) return [];
  return cancelByIds(
    tx,
    tenantId,
    row.reminders.map(({ id }) => id),
    by,
  );
}
