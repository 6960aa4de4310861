/**
 * What a notification has to do with its batch. Null on the row: nothing.
 *
 *     MEMBER ──the batch closes──▶ MERGED   its fate is that of the batch's notification
 *        │                    └──▶ ALONE    the only one left, or of one that cannot be closed: goes as itself, and joins no batch
 *        └─the rules changed──▶ (none)      decided anew
 *
 *     ALONE is also what was sent with `batchable` false, from the start and without a batch.
 *
 *     WHOLE: the batch's notification. Whoever changes its status lets the MERGED follow in the same transaction
 *     (`followWholes`); nobody else touches a MERGED row, so these need no place in the order of locks.
 */
export const BatchRole = { MEMBER: 1, MERGED: 2, ALONE: 3, WHOLE: 4 } as const;

/** Whether a notification has come together with what there was: it is the notification of a batch, or was left alone in one. */
export function isCollected(role: number | null | undefined, batchedAt: Date | null | undefined): boolean {
  return role === BatchRole.WHOLE || (role === BatchRole.ALONE && batchedAt != null);
}
