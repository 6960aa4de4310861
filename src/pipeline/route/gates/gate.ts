import type { Channel, Reason } from "#gen/posthorn/v1/notification_pb.ts";
import type { BatchPlan } from "#src/batches/plan.ts";
import type { GoodHours } from "#src/learning/looks.ts";
import type { CompiledPreferences } from "#src/preferences/compile.ts";
import type { Judged } from "#src/subscriptions/rules.ts";
import type { TypeRules } from "#src/types/type.ts";

/** All a gate may look at. Loaded before, so that deciding needs no I/O. */
export type Facts = {
  readonly notification: {
    readonly id: string;
    readonly userId?: string | undefined;
    readonly type: string;
    readonly category: string;
    readonly priority: number;
    /** At least one, without repeats. */
    readonly channels: readonly Channel[];
    readonly expiresAt?: Date | undefined;
    readonly scheduledAt?: Date | undefined;
    readonly acceptedAt?: Date | undefined;
    readonly senderId?: string | undefined;
    readonly bypassLimits: boolean;
    /** The type does not exist any more. */
    readonly typeDeleted?: boolean | undefined;
    /** What its type says of batches and digests; undefined: nothing. */
    readonly rules?: TypeRules | undefined;
    /** It has been through a batch, or is the notification of one: it joins none. */
    readonly batchedAlready?: boolean | undefined;
    /** It is the notification of a batch. */
    readonly isWhole?: boolean | undefined;
    /** It is that, or was left alone in one: it has come together with what there was. */
    readonly collected?: boolean | undefined;
    /** When it first joined a batch, if it had to leave that. */
    readonly batchedSince?: Date | undefined;
    readonly tags?: readonly string[] | undefined;
    /** Encoded posthorn.v1.Content. */
    readonly content?: Uint8Array | undefined;
  };
  readonly preferences: CompiledPreferences;
  /** When the user usually looks. Undefined: not known, or nobody is going to ask. */
  readonly good?: GoodHours | undefined;
  /** What the user's subscriptions say, asked once; absent: whoever wants to know asks them (filtered.ts). */
  readonly judged?: () => Judged | undefined;
};

/** Why not now. Nothing: no objection. */
export type Objection =
  | { kind: "hold"; reason: Reason; until: Date }
  | { kind: "batch"; reason: Reason; plan: BatchPlan }
  | Suppression;

/** `filterFailed`: not because the user does not want it, but because nobody can say. */
export type Suppression = { kind: "suppress"; reason: Reason; filterFailed?: boolean };

/** A rule about the notification as a whole: what it says holds for every channel. Pure. */
export type Gate = (facts: Facts, now: Date) => Objection | undefined;

/** A rule about one of its channels. Pure. */
export type ChannelGate = (facts: Facts, channel: Channel, now: Date) => Objection | undefined;

export function suppress(reason: Reason): Objection {
  return { kind: "suppress", reason };
}
