import { Reason } from "#gen/posthorn/v1/notification_pb.ts";
import type { Judged } from "#src/subscriptions/rules.ts";
import type { Facts, Gate } from "./gate.ts";

/** The user has subscribed to it, and none of the subscriptions lets this one through. */
export const filtered: Gate = (facts) => {
  const judged = facts.judged === undefined ? judgedOf(facts) : facts.judged();
  if (judged === undefined || judged.answer === "match") return undefined;
  return { kind: "suppress", reason: Reason.FILTERED, ...(judged.answer === "failed" ? { filterFailed: true } : {}) };
};

/** The same facts, of which the filters are asked once at the most: by the gate, and by who tells what they said. */
export function askingOnce(facts: Facts): Facts {
  if (facts.preferences.wishes === undefined) return facts;
  let known: { judged: Judged | undefined } | undefined;
  const judged = () => {
    known ??= { judged: judgedOf(facts) };
    return known.judged;
  };
  return { ...facts, judged };
}

/** Undefined: nothing is to be asked. */
function judgedOf({ notification, preferences: { wishes } }: Facts): Judged | undefined {
  // The notification of a batch has other words than its members, who were asked one by one.
  if (wishes === undefined || notification.isWhole) return undefined;
  const { type, category, priority, tags = [], content } = notification;
  return wishes.judge({ type, category, priority, tags, content });
}
