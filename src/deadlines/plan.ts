/** A reminder that was stored: how long before the deadline, when it is due, and its notification. */
export type Reminder = { offsetMs: number; dueAt: number; id: string };

/** What a deadline's change does to its reminders. */
export type Plan = {
  /** As they are: for the same time, delivered or not. */
  keep: Reminder[];
  /** Those that wait get a new time; `instead` is stored for those that no longer can. */
  move: { reminder: Reminder; dueAt: number }[];
  /** Were due, and would be at the new time too, with the deadline ahead: what of them is held back still has its worth. */
  overdue: Reminder[];
  create: { offsetMs: number; dueAt: number }[];
  cancel: Reminder[];
};

/**
 * What has to happen so that a deadline has exactly the reminders its offsets say. A reminder belongs to its offset: it
 * moves with the deadline. None is made for a time that is past, and none is made twice for the same time.
 */
export function plan(stored: readonly Reminder[], at: number, offsetsMs: readonly number[], now: number): Plan {
  const result: Plan = { keep: [], move: [], overdue: [], create: [], cancel: [] };
  const wanted = new Map(offsetsMs.map((offsetMs) => [offsetMs, at - offsetMs]));
  for (const reminder of stored) {
    const dueAt = wanted.get(reminder.offsetMs);
    wanted.delete(reminder.offsetMs);
    if (dueAt === undefined) result.cancel.push(reminder);
    else if (dueAt === reminder.dueAt) result.keep.push(reminder);
    else if (dueAt > now) result.move.push({ reminder, dueAt });
    else if (reminder.dueAt <= now && now < at) result.overdue.push(reminder);
    else result.cancel.push(reminder);
  }
  for (const [offsetMs, dueAt] of wanted) if (dueAt > now) result.create.push({ offsetMs, dueAt });
  return result;
}
