import { BatchKind } from "#gen/posthorn/v1/batch_service_pb.ts";
import { type Digest_Mode, Digest_Mode as Mode } from "#gen/posthorn/v1/preferences_service_pb.ts";
import { DigestRule } from "#gen/posthorn/v1/type_service_pb.ts";
import type { CompiledPreferences } from "#src/preferences/compile.ts";
import { type DigestTime, nextDigest } from "#src/preferences/next-digest.ts";
import type { TypeBatching } from "#src/types/type.ts";

/** Into which batch a notification shall go, and how that batch is to be if it is the first. */
export type BatchPlan = {
  readonly kind: typeof BatchKind.BATCH | typeof BatchKind.DIGEST;
  /** What comes together, of one user. */
  readonly key: string;
  readonly flushAt: Date;
  /** How far those who join may move it; equal to it where they may not. */
  readonly latestFlushAt: Date;
  readonly maxSize: number;
  /** The one that opens it does not join, but goes at once. */
  readonly leading: boolean;
};

/** What a digest holds at most; what is more makes another for the same time. */
export const MAX_DIGEST = 500;

/** Of a sliding window, where the type does not say how far it slides. */
const WINDOWS_AT_MOST = 4;

/** What of a notification counts. `since`: when it first joined a batch, if it has been in one. */
export type Batchable = {
  readonly type: string;
  readonly priority: number;
  readonly channels: readonly number[];
  readonly since: Date | undefined;
};

/**
 * How a notification is batched by its type's rule and the user's: the stricter of both holds. Undefined where a batch
 * would hold one, for which nobody need wait. A window begins with the first that joins; for what was in a batch before,
 * it began then.
 */
export function batchPlan(
  { type, priority, channels, since }: Batchable,
  rule: TypeBatching,
  own: { maxSize: number; windowMs: number },
  now: Date,
): BatchPlan | undefined {
  const maxSize = rule.maxSize === 0 ? own.maxSize : Math.min(rule.maxSize, own.maxSize);
  if (maxSize < 2) return undefined;
  const windowMs = Math.min(rule.windowMs ?? own.windowMs, own.windowMs);
  const maxWindowMs = rule.sliding ? Math.max(windowMs, rule.maxWindowMs ?? WINDOWS_AT_MOST * windowMs) : windowMs;
  const from = Math.min(since?.getTime() ?? now.getTime(), now.getTime());
  const at = (ms: number) => new Date(Math.max(now.getTime(), from + ms));
  return {
    kind: BatchKind.BATCH,
    key: `b:${type}:${priority}:${channels.join(",")}`,
    flushAt: at(windowMs),
    latestFlushAt: at(maxWindowMs),
    maxSize,
    leading: rule.leading && since === undefined,
  };
}

/**
 * Whether a reminder of a deadline would come too late with a batch or digest: with less than half of the time left that its
 * recipient has now. Reminders expire with their deadlines.
 */
export function isTooLateFor(
  { latestFlushAt }: Pick<BatchPlan, "latestFlushAt">,
  expiresAt: Date | undefined,
  now: Date,
): boolean {
  if (expiresAt === undefined) return false;
  return latestFlushAt.getTime() - now.getTime() > (expiresAt.getTime() - now.getTime()) / 2;
}

/**
 * The digest a notification waits for; undefined when it waits for none. For one that has been in a batch before it is
 * that which it would have waited for then; where that is past, what is in the same case comes together at once. `allowed`:
 * the first instant, not before another, at which the clock lets it come.
 */
export function digestPlan(
  { channels, since }: Pick<Batchable, "channels" | "since">,
  rule: DigestRule,
  own: Digest_Mode,
  { time, days, clock }: CompiledPreferences["digest"],
  now: Date,
  allowed: (from: Date) => Date,
): BatchPlan | undefined {
  if (rule === DigestRule.NEVER) return undefined;
  const mode = rule === DigestRule.ALWAYS && own === Mode.IMMEDIATE ? Mode.DAILY : own;
  if (mode !== Mode.HOURLY && mode !== Mode.DAILY && mode !== Mode.WEEKLY) return undefined;
  const from = since !== undefined && since < now ? since : now;
  const plan = planFor(mode as DigestTime["mode"], channels, { time, days, clock }, from);
  const due = allowed(plan.flushAt);
  if (due > now) return { ...plan, flushAt: due, latestFlushAt: due };
  const late = allowed(now);
  return { ...plan, key: `${plan.key}:late`, flushAt: late, latestFlushAt: late };
}

/** The digest at the next full hour: for what the hourly cap refuses, which would not wait for one otherwise. */
export function hourlyPlan(
  { channels }: Pick<Batchable, "channels">,
  times: CompiledPreferences["digest"],
  now: Date,
): BatchPlan {
  return planFor(Mode.HOURLY, channels, times, now);
}

function planFor(
  mode: DigestTime["mode"],
  channels: Batchable["channels"],
  { time, days, clock }: CompiledPreferences["digest"],
  now: Date,
): BatchPlan {
  const due = new Date(nextDigest({ mode, time, days }, clock(), now.getTime()));
  return {
    kind: BatchKind.DIGEST,
    key: `d:${mode}:${channels.join(",")}`,
    flushAt: due,
    latestFlushAt: due,
    maxSize: MAX_DIGEST,
    leading: false,
  };
}
