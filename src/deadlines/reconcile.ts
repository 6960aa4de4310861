import { endBatches } from "#src/batches/dissolve.ts";
import type { NewId } from "#src/ids.ts";
import { raiseFence } from "#src/preferences/fence.ts";
import { reminderOffsets } from "#src/preferences/merge.ts";
import { readLevels } from "#src/preferences/queries.ts";
import type { ReconcileReminders } from "#src/preferences/reconciled.ts";
import type { Db } from "#src/store/store.ts";
import { findTypes } from "#src/types/queries.ts";
import type { NotificationTypeRow } from "#src/types/type.ts";
import { plan, type Reminder } from "./plan.ts";
import { cancelReminders, type Following, lockFollowing, saveReminders } from "./queries.ts";

export type NewReminder = { deadline: Following; type: NotificationTypeRow; id: string; dueAt: Date };

export type RemindersDeps = {
  newId: NewId;
  /** Stores reminders as SCHEDULED notifications. */
  store(db: Db, tenantId: string, reminders: readonly NewReminder[], now: Date): Promise<void>;
  /** Tells the users' streams. Called after the commit. */
  cancelled(tenantId: string, notifications: readonly { id: string; userId: string }[], at: Date): void;
};

/**
 * Locks the user's fence, then their batches, their deadlines by key, and notifications by id: each as everybody does who
 * takes several of them.
 */
export function reconcilingReminders(deps: RemindersDeps): ReconcileReminders {
  return async (db, tenantId, userId, { actor, now }) => {
    await raiseFence(db, tenantId, [userId]);
    // A reminder that is cancelled may be a member of one, and those come before it.
    await endBatches(db, tenantId, [userId], now);
    const deadlines = await lockFollowing(db, tenantId, userId, now);
    const types = await findTypes(db, tenantId, [...new Set(deadlines.map(({ type }) => type))]);
    const { levels } = await readLevels(db, tenantId, [userId]);
    const changes = deadlines.flatMap((deadline) => {
      const type = types.find(({ key }) => key === deadline.type);
      // Of a type that is gone there are no reminders.
      if (type === undefined) return [];
      const scope = { type: type.key, category: type.category };
      const offsets = reminderOffsets(levels(userId), scope, type.reminderOffsetsMs).value;
      const { create, cancel } = plan(deadline.reminders, deadline.at.getTime(), offsets, now.getTime());
      if (create.length + cancel.length === 0) return [];
      return [{ deadline, type, cancel, create: create.map((each) => ({ ...each, id: deps.newId() })) }];
    });
    const ids = changes.flatMap(({ cancel }) => cancel.map(({ id }) => id));
    const cancelled = await cancelReminders(db, tenantId, ids, { actor, now });
    const made = changes.flatMap(({ deadline, type, create }) =>
      create.map(({ id, dueAt }) => ({ deadline, type, id, dueAt: new Date(dueAt) })),
    );
    await deps.store(db, tenantId, made, now);
    await saveReminders(
      db,
      { tenantId, userId },
      changes.map(({ deadline: { key, reminders }, cancel, create }) => ({
        key,
        reminders: [...without(reminders, cancel), ...create].sort((a, b) => b.offsetMs - a.offsetMs),
      })),
      now,
    );
    const ended = new Set(cancelled.map(({ id }) => id));
    const counts = { suppressed: 0, moved: 0, added: 0 };
    for (const { cancel, create } of changes) {
      const gone = cancel.filter(({ id }) => ended.has(id)).length;
      const moved = Math.min(gone, create.length);
      counts.moved += moved;
      counts.suppressed += gone - moved;
      counts.added += create.length - moved;
    }
    return {
      counts,
      fresh: new Set(made.map(({ id }) => id)),
      announce: () => deps.cancelled(tenantId, cancelled, now),
    };
  };
}

function without(reminders: readonly Reminder[], gone: readonly Reminder[]): Reminder[] {
  return reminders.filter((reminder) => !gone.includes(reminder));
}
