import type { Reason, Status } from "#gen/posthorn/v1/notification_pb.ts";
import type { Grouped } from "#src/inbox/group.ts";

/** What the limits said about one notification that no gate held back. */
export type Reservation =
  | { allowed: true }
  | { allowed: false; reason: Reason; until: Date; usage: number; limit: number; resetAt: Date };

/** What was decided about one notification. */
export type Conclusion = {
  id: string;
  status:
    | typeof Status.DELIVERED
    | typeof Status.HELD
    | typeof Status.SUPPRESSED
    | typeof Status.EXPIRED
    | typeof Status.FAILED;
  reason: number;
  /** HELD: when it is decided again. */
  dueAt: Date | undefined;
  /** Encoded TimelineEntry with verdicts and rate_limit; none where the status says it all. */
  detail: Uint8Array | undefined;
  /** DELIVERED: what it is grouped by in the inbox. */
  group?: Grouped | undefined;
  /** Of the row that was decided about; when it has changed since, nothing is stored. Undefined: whatever it is now. */
  version?: string | undefined;
};
