import { Reason, Status } from "#gen/posthorn/v1/notification_pb.ts";
import { SLOT_KEPT_MS } from "#src/limits/hold.ts";
import type { Reservation } from "#src/limits/notification-limits.ts";
import type { Conclusion } from "./conclusion.ts";

/**
 * The turn under the limits that a notification has after a decision: the one it was given now; or that of before, if a
 * rule holds it no longer than it is kept. One that is held for longer asks for a new one; so does one that had its turn
 * from the hourly cap, because it has not asked the other limits yet. Pure.
 */
export function bookingAfter(
  before: { bookedAt: Date | null; reason: number },
  { status, dueAt }: Pick<Conclusion, "status" | "dueAt">,
  reservation: Reservation | undefined,
): Date | undefined {
  if (status !== Status.HELD || dueAt === undefined) return undefined;
  if (reservation?.allowed === false) return reservation.slot ? reservation.until : undefined;
  const { bookedAt, reason } = before;
  if (reason === Reason.HOURLY_CAP) return undefined;
  return bookedAt !== null && bookedAt.getTime() + SLOT_KEPT_MS >= dueAt.getTime() ? bookedAt : undefined;
}
