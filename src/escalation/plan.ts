import { fromBinary } from "@bufbuild/protobuf";
import { durationMs } from "@bufbuild/protobuf/wkt";
import { type Escalation, EscalationSchema, Priority } from "#gen/posthorn/v1/notification_pb.ts";
import type { CompiledPreferences } from "#src/preferences/compile.ts";
import type { Step } from "./state.ts";

/** What is to happen when nobody answers. Without steps: nothing but that a confirmation is asked for. */
export type EscalationPlan = { readonly steps: readonly Step[]; readonly confirmationRequired: boolean };

/** Between a recipient's own fallbacks. */
const FALLBACK_MS = 5 * 60_000;

export function toPlan({ steps, confirmationRequired }: Escalation): EscalationPlan {
  return {
    steps: steps.map(({ channel, after }) => ({
      channel,
      afterMs: after === undefined ? FALLBACK_MS : Math.floor(durationMs(after)),
    })),
    confirmationRequired,
  };
}

/**
 * The escalation in force: the request's, else the type's, else, for CRITICAL, what the recipient wishes. Who asks for a
 * confirmation without saying what happens else leaves that to the recipient. Undefined: nothing is asked for. Pure.
 */
export function planFor(
  { escalation, priority }: { escalation: Uint8Array | null; priority: number },
  ofType: EscalationPlan | undefined,
  { delivery }: Pick<CompiledPreferences, "delivery">,
): EscalationPlan | undefined {
  const wished = priority === Priority.CRITICAL && delivery.confirmationRequired;
  if (escalation === null && ofType === undefined && !wished) return undefined;
  const asked = escalation === null ? ofType : toPlan(fromBinary(EscalationSchema, escalation));
  // "None" is said for this one, or this type, and stands above the wish for whatever is CRITICAL.
  const none = asked !== undefined && asked.steps.length === 0 && !asked.confirmationRequired;
  if (none) return undefined;
  const confirmationRequired = wished || asked?.confirmationRequired === true;
  const steps = asked?.steps ?? [];
  if (steps.length > 0 || !confirmationRequired) return { steps, confirmationRequired };
  return { steps: delivery.fallbacks.map((channel) => ({ channel, afterMs: FALLBACK_MS })), confirmationRequired };
}
