import type { Reason } from "#gen/posthorn/v1/notification_pb.ts";
import { type Given, slotNow } from "./hold.ts";
import {
  CAP_WINDOW,
  type Cap,
  limitsOf,
  type NotificationLimitsConfig,
  type Slot,
  USER_WINDOWS,
  type Wanted,
  WINDOWS,
  windowEnd,
} from "./windows.ts";

/**
 * `until`: its turn, or when to ask again; `slot`: the turn is its own, to be handed in with the next request. `resetAt`:
 * when the window ends that it waits for. `digest`: it is not to wait, but to be collected; `perHour`: the cap that said so,
 * or holds it. Of what is allowed `nearest` and `cap` say how near it was to a limit, as far as these were asked.
 */
export type Reservation =
  | { allowed: true; nearest?: Passed; cap?: Passed & { perHour: number } }
  | {
      allowed: false;
      reason: Reason;
      until: Date;
      slot: boolean;
      usage: number;
      limit: number;
      resetAt: Date;
      digest?: boolean;
      perHour?: number;
    };

/** A limit that let it pass, without it. */
export type Passed = { reason: Reason; usage: number; limit: number };

/** `slot`: what it was given when it was held for that reason. */
export type Request = Wanted & { slot?: Given | undefined };

export const ALLOWED: Reservation = { allowed: true };

/** What its slot says about one that has one and need not ask; undefined: it has to. Pure. */
export function bySlot({ slot }: Request, config: NotificationLimitsConfig, nowMs: number): Reservation | undefined {
  if (slot === undefined || slot.reason === CAP_WINDOW.reason) return undefined;
  const where = slotNow(slot, nowMs);
  if (where === "missed") return undefined;
  return where === "here" ? ALLOWED : stillHeld(slot, config, nowMs);
}

/** What is asked for one that has to ask: with the turn that the cap gave it. */
export function wantedBy(request: Request): Wanted {
  const { slot } = request;
  return slot?.reason === CAP_WINDOW.reason ? { ...request, capTurnMs: slot.at.getTime() } : request;
}

/** What a slot means for one that has, or has not, a cap. */
export function reservationOf(slot: Slot, cap: Cap | undefined, nowMs: number): Reservation {
  const { atMs, counted, limit } = slot;
  if (limit === undefined) return allowedBy(slot, cap);
  const { window, usage } = limit;
  const waits = { allowed: false, reason: window.reason, usage, limit: limit.limit } as const;
  if (window !== CAP_WINDOW)
    return { ...waits, until: new Date(atMs), slot: counted, resetAt: new Date(windowEnd(window, nowMs)) };
  const { perHour = 0, over } = cap ?? {};
  if (over !== "digest") {
    return { ...waits, until: new Date(atMs), slot: counted, resetAt: new Date(windowEnd(window, nowMs)), perHour };
  }
  const resetAt = new Date(windowEnd(window, atMs));
  return { ...waits, until: resetAt, slot: false, resetAt, digest: true, perHour };
}

function allowedBy({ nearest, capUsed }: Slot, cap: Cap | undefined): Reservation {
  if (nearest === undefined && capUsed === undefined) return ALLOWED;
  return {
    allowed: true,
    ...(nearest && { nearest: { reason: nearest.window.reason, usage: nearest.usage, limit: nearest.limit } }),
    ...(cap !== undefined &&
      capUsed !== undefined && {
        cap: { reason: CAP_WINDOW.reason, usage: capUsed, limit: cap.share, perHour: cap.perHour },
      }),
  };
}

/** It was decided anew before its turn, because rules changed or a clock is ahead: it keeps it. */
function stillHeld({ at, reason }: Given, config: NotificationLimitsConfig, nowMs: number): Reservation {
  const limits = limitsOf(config);
  // Where another rule held it meanwhile, what it waited for is not known any more: it stands behind its user's others.
  const number = Math.max(
    WINDOWS.findIndex((window) => window.reason === reason),
    0,
  );
  const [window, limit] = [WINDOWS[number] ?? USER_WINDOWS[0], limits[number] ?? 0];
  const resetAt = new Date(windowEnd(window, nowMs));
  return { allowed: false, reason: window.reason, until: at, slot: true, usage: limit, limit, resetAt };
}
