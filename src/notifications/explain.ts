import { create, fromBinary } from "@bufbuild/protobuf";
import { Temporal } from "temporal-polyfill";
import { type DecisionRecord, DecisionRecordSchema } from "#gen/posthorn/internal/v1/decision_pb.ts";
import {
  type ChannelExplanation,
  ChannelExplanationSchema,
  type Decision,
  DecisionSchema,
  Exemption,
  type ExplainedEntry,
  ExplainedEntrySchema,
  Gate,
  GateAnswer,
  type GateVerdict,
  GateVerdictSchema,
  type Rule,
  RuleSchema,
} from "#gen/posthorn/v1/explain_pb.ts";
import {
  Channel,
  Priority,
  Reason,
  type TimelineEntry,
  type Verdict,
  VerdictKind,
} from "#gen/posthorn/v1/notification_pb.ts";
import type { RuleBehind } from "#src/preferences/rule-behind.ts";
import { isTimeZone } from "#src/users/time-zone.ts";
import { gateOf } from "./gate-of.ts";
import { acceptedEntry, isBypass, type NotificationRow, type TimelineRow, toTimelineEntry } from "./notification.ts";
import type { Drawn, RulesThen } from "./rules-then.ts";

/** What of a notification lets it pass limits. */
export type Subject = Pick<NotificationRow, "priority" | "bypassLimits">;

/** All gates, in the order in which they are asked. */
export const GATES: readonly Gate[] = [
  Gate.EXPIRY,
  Gate.TYPE_EXISTS,
  Gate.OPT_OUT,
  Gate.TYPE_SWITCH,
  Gate.CHANNEL_SWITCH,
  Gate.CHANNEL_AVAILABLE,
  Gate.MINIMUM_PRIORITY,
  Gate.SUBSCRIPTIONS,
  Gate.SCHEDULE,
  Gate.DIGEST,
  Gate.QUIET_HOURS,
  Gate.DO_NOT_DISTURB,
  Gate.WEEKEND,
  Gate.OPTIMAL_TIMING,
  Gate.BATCH,
  Gate.HOURLY_CAP,
  Gate.RATE_LIMITS,
];

/** What is not asked about steps of an escalation: the notification has reached its recipient before. */
const NOT_OF_STEPS: ReadonlySet<Gate> = new Set([
  Gate.SUBSCRIPTIONS,
  Gate.OPTIMAL_TIMING,
  Gate.DIGEST,
  Gate.BATCH,
  Gate.HOURLY_CAP,
  Gate.RATE_LIMITS,
]);

/** A notification's history with its decisions explained: by what was kept of them, as far as it was. Pure. */
export function explained(row: NotificationRow, rows: readonly TimelineRow[], rulesThen: RulesThen): ExplainedEntry[] {
  const accepted = create(ExplainedEntrySchema, { entry: acceptedEntry(row, rows) });
  const others = rows
    .filter((each) => !isBypass(each))
    .map((each) => {
      // What its batch's notification has become, it has become: nobody asked about it.
      const follows = each.detail === null && row.batchId !== null;
      if (follows) return create(ExplainedEntrySchema, { entry: toTimelineEntry(each) });
      return explainedEntry(row, each, rulesThen);
    });
  return [accepted, ...others];
}

/** What all decisions of a history were drawn from, as far as that was kept. */
export function drawnIn(rows: readonly Pick<TimelineRow, "detail">[]): Drawn[] {
  return rows.flatMap(({ detail }) => {
    const drawn = detail === null ? undefined : recordIn(detail)?.drawn;
    return drawn === undefined ? [] : [drawn];
  });
}

/** One entry of the history, with its decision explained if it is one. Pure. */
export function explainedEntry(subject: Subject, row: TimelineRow, rulesThen: RulesThen): ExplainedEntry {
  const entry = toTimelineEntry(row);
  const record = row.detail === null ? undefined : recordIn(row.detail);
  const passed = record === undefined ? NOTHING_KNOWN : passing(subject, record, rulesThen, row.at);
  const decision = explainedDecision(subject, entry, record, { at: row.at, passed });
  return create(ExplainedEntrySchema, { entry, ...(decision && { decision }) });
}

/** What is stored of a decision besides its entry; undefined: nothing. */
function recordIn(detail: Uint8Array): DecisionRecord | undefined {
  const record = fromBinary(DecisionRecordSchema, detail, { readUnknownFields: false });
  return record.drawn === undefined ? undefined : record;
}

/** The rule of a gate that passed, as far as it is known. */
type Passing = (gate: Gate, channel: Channel) => RuleBehind;

const NOTHING_KNOWN: Passing = () => ({});

function passing(subject: Subject, record: DecisionRecord, rulesThen: RulesThen, at: Date): Passing {
  const { drawn, passedLimit, passedCap, passedSubscriptions } = record;
  const rules = drawn && rulesThen(drawn, at);
  return (gate, channel) => {
    const known = rules?.(gate, channel, at) ?? {};
    switch (gate) {
      case Gate.SUBSCRIPTIONS:
        return passedSubscriptions.length > 0 ? { subscriptionIds: passedSubscriptions } : {};
      case Gate.RATE_LIMITS:
        return { ...exemptionOf(subject, gate), ...(passedLimit && { limit: passedLimit }) };
      case Gate.HOURLY_CAP:
        return { ...known, ...exemptionOf(subject, gate), ...(passedCap && { limit: passedCap }) };
      default:
        return known;
    }
  };
}

/** Undefined: it is no decision. One without a record was made before records were kept, or is of a step. Pure. */
function explainedDecision(
  subject: Subject,
  entry: TimelineEntry,
  record: DecisionRecord | undefined,
  { at, passed }: { at: Date; passed: Passing },
): Decision | undefined {
  const ofStep = isOfStep(entry);
  if (entry.verdicts.length === 0 || (record === undefined && entry.channel > Channel.IN_APP && !ofStep))
    return undefined;
  const usual: Passing = record === undefined ? (gate) => exemptionOf(subject, gate) : passed;
  const channels = entry.verdicts.map((verdict, index) => {
    const rule = withLimit(record?.rules[index], verdict, entry);
    return explainedChannel(verdict, { rule, ofStep, passed: usual });
  });
  if (record?.drawn === undefined) return create(DecisionSchema, { channels });
  const { preferences, defaultPreferences, type, timeZone } = record.drawn;
  const zone = timeZone || "UTC";
  return create(DecisionSchema, {
    timeZone: zone,
    localTime: localTime(at, zone),
    versions: { preferences, defaultPreferences, type },
    channels,
  });
}

/** Of a hand-over that was tried, nobody asked the gates. */
function isOfStep({ step, verdicts: [verdict] }: TimelineEntry): boolean {
  return step > 0 && !HANDED_OVER.has(verdict?.kind) && verdict?.reason !== Reason.CHANNEL_UNAVAILABLE;
}

const HANDED_OVER: ReadonlySet<VerdictKind | undefined> = new Set([VerdictKind.DELIVER, VerdictKind.UNKNOWN]);

type Behind = { rule: Rule; ofStep: boolean; passed: Passing };

function explainedChannel(verdict: Verdict, behind: Behind): ChannelExplanation {
  const deciding = verdict.kind === VerdictKind.DELIVER ? undefined : gateOf(verdict.reason);
  // Objections of no gate: what ended it is in the entry.
  const known = deciding !== undefined || verdict.kind === VerdictKind.DELIVER;
  const gates = known ? GATES.map((gate) => explainedGate(gate, deciding, verdict, behind)) : [];
  return create(ChannelExplanationSchema, { channel: verdict.channel, verdict, gates });
}

function explainedGate(
  gate: Gate,
  deciding: Gate | undefined,
  verdict: Verdict,
  { rule, ofStep, passed }: Behind,
): GateVerdict {
  if (gate === deciding) {
    const { reason, until, kind } = verdict;
    const answer = ANSWERS[kind] ?? GateAnswer.UNSPECIFIED;
    return create(GateVerdictSchema, { gate, answer, reason, ...(until && { until }), rule });
  }
  if ((deciding !== undefined && GATES.indexOf(gate) > GATES.indexOf(deciding)) || (ofStep && NOT_OF_STEPS.has(gate)))
    return create(GateVerdictSchema, { gate, answer: GateAnswer.NOT_ASKED });
  const known = passed(gate, verdict.channel);
  const answer = GateAnswer.PASSED;
  return create(GateVerdictSchema, Object.keys(known).length === 0 ? { gate, answer } : { gate, answer, rule: known });
}

function exemptionOf({ priority, bypassLimits }: Subject, gate: Gate): RuleBehind {
  if (gate !== Gate.RATE_LIMITS && gate !== Gate.HOURLY_CAP) return {};
  if (priority === Priority.CRITICAL) return { exemption: Exemption.CRITICAL };
  return bypassLimits && gate === Gate.RATE_LIMITS ? { exemption: Exemption.BYPASS } : {};
}

function withLimit(rule: Rule | undefined, { reason }: Verdict, { rateLimit }: TimelineEntry): Rule {
  const gate = gateOf(reason);
  const isLimit = gate === Gate.HOURLY_CAP || gate === Gate.RATE_LIMITS;
  const known = rule ?? create(RuleSchema);
  if (isLimit && rateLimit !== undefined) known.limit = rateLimit;
  return known;
}

const ANSWERS: { readonly [kind in VerdictKind]: GateAnswer } = {
  [VerdictKind.UNSPECIFIED]: GateAnswer.UNSPECIFIED,
  [VerdictKind.DELIVER]: GateAnswer.PASSED,
  [VerdictKind.HOLD]: GateAnswer.HELD,
  [VerdictKind.SUPPRESS]: GateAnswer.SUPPRESSED,
  [VerdictKind.BATCH]: GateAnswer.COLLECTED,
  [VerdictKind.UNKNOWN]: GateAnswer.UNSPECIFIED,
};

/** The wall clock of a zone, to the second; empty where the zone is not known here. */
export function localTime(at: Date, zone: string): string {
  if (!isTimeZone(zone)) return "";
  const there = Temporal.Instant.fromEpochMilliseconds(at.getTime()).toZonedDateTimeISO(zone);
  return there.toPlainDateTime().toString({ smallestUnit: "second" });
}
