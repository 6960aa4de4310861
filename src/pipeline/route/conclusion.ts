import type { Channel, Status } from "#gen/posthorn/v1/notification_pb.ts";
import type { BatchPlan } from "#src/batches/plan.ts";
import type { EscalationPlan } from "#src/escalation/plan.ts";
import type { Grouped } from "#src/inbox/group.ts";
import type { Reservation } from "#src/limits/notification-limits.ts";
import type { RulesVersion } from "#src/preferences/fence.ts";
import type { Recorded } from "./record.ts";

export type Refusal = Extract<Reservation, { allowed: false }>;

/** What was decided about one notification. */
export type Conclusion = {
  id: string;
  status:
    | typeof Status.DELIVERED
    | typeof Status.PROCESSING
    | typeof Status.HELD
    | typeof Status.BATCHED
    | typeof Status.SUPPRESSED
    | typeof Status.EXPIRED
    | typeof Status.FAILED;
  reason: number;
  /** HELD: when it is decided again. */
  dueAt: Date | undefined;
  /** HELD by a limit: the turn it was given, which may be after `dueAt`. It passes the limits with it. */
  bookedAt?: Date | undefined;
  /** BATCHED: into which batch it shall go, and, once it is known, which that is. */
  plan?: BatchPlan | undefined;
  batch?: { id: string; flushAt: Date } | undefined;
  /** BATCHED, until its batch is known: what will be kept with it. */
  recorded?: Recorded | undefined;
  /** Encoded TimelineEntry with verdicts and rate_limit, none where the status says it all; then a DecisionRecord. */
  detail: Uint8Array | undefined;
  /** DELIVERED, PROCESSING: the outside channels that are to take it. */
  handOver?: readonly Channel[] | undefined;
  /** DELIVERED, PROCESSING: what happens when nobody answers. */
  escalation?: EscalationPlan | undefined;
  /** DELIVERED: what it is grouped by in the inbox. */
  group?: Grouped | undefined;
  /** Of the row that was decided about; when it has changed since, nothing is stored. Undefined: whatever it is now. */
  version?: string | undefined;
  /** The rules it was drawn from; when they have changed since, nothing is stored. Undefined: whatever they are now. */
  rules?: ({ userId: string } & RulesVersion) | undefined;
};
