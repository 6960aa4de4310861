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
import { isTimeZone } from "#src/users/time-zone.ts";
import { gateOf } from "./gate-of.ts";
import { acceptedEntry, isBypass, type NotificationRow, type TimelineRow, toTimelineEntry } from "./notification.ts";

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
  Gate.QUIET_HOURS,
  Gate.DO_NOT_DISTURB,
  Gate.WEEKEND,
  Gate.DIGEST,
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
export function explained(row: NotificationRow, rows: readonly TimelineRow[]): ExplainedEntry[] {
  const accepted = create(ExplainedEntrySchema, { entry: acceptedEntry(row, rows) });
  const others = rows
    .filter((each) => !isBypass(each))
    .map((each) => {
      // What its batch's notification has become, it has become: nobody asked about it.
      const follows = each.detail === null && row.batchId !== null;
      return follows ? create(ExplainedEntrySchema, { entry: toTimelineEntry(each) }) : explainedEntry(row, each);
    });
  return [accepted, ...others];
}

/** One entry of the history, with its decision explained if it is one. Pure. */
export function explainedEntry(subject: Subject, row: TimelineRow): ExplainedEntry {
  const entry = toTimelineEntry(row);
  const record = row.detail === null ? undefined : recordIn(row.detail);
  const decision = explainedDecision(subject, entry, record, row.at);
  return create(ExplainedEntrySchema, { entry, ...(decision && { decision }) });
}

/** What is stored of a decision besides its entry; undefined: nothing. */
function recordIn(detail: Uint8Array): DecisionRecord | undefined {
  const record = fromBinary(DecisionRecordSchema, detail, { readUnknownFields: false });
  return record.drawn === undefined ? undefined : record;
}

/** Undefined: it is no decision. One without a record was made before records were kept, or is of a step. Pure. */
function explainedDecision(
  subject: Subject,
  entry: TimelineEntry,
  record: DecisionRecord | undefined,
  at: Date,
): Decision | undefined {
  const ofStep = isOfStep(entry);
  if (entry.verdicts.length === 0 || (record === undefined && entry.channel > Channel.IN_APP && !ofStep))
    return undefined;
  const channels = entry.verdicts.map((verdict, index) => {
    const rule = withLimit(record?.rules[index], verdict, entry);
    return explainedChannel(subject, verdict, rule, ofStep);
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

function explainedChannel(subject: Subject, verdict: Verdict, rule: Rule, ofStep: boolean): ChannelExplanation {
  const deciding = verdict.kind === VerdictKind.DELIVER ? undefined : gateOf(verdict.reason);
  // Objections of no gate: what ended it is in the entry.
  const known = deciding !== undefined || verdict.kind === VerdictKind.DELIVER;
  const gates = known ? GATES.map((gate) => explainedGate(subject, gate, deciding, { verdict, rule, ofStep })) : [];
  return create(ChannelExplanationSchema, { channel: verdict.channel, verdict, gates });
}

function explainedGate(
  subject: Subject,
  gate: Gate,
  deciding: Gate | undefined,
  { verdict, rule, ofStep }: { verdict: Verdict; rule: Rule; ofStep: boolean },
): GateVerdict {
  if (gate === deciding) {
    const { reason, until, kind } = verdict;
    const answer = ANSWERS[kind] ?? GateAnswer.UNSPECIFIED;
    return create(GateVerdictSchema, { gate, answer, reason, ...(until && { until }), rule });
  }
  if ((deciding !== undefined && GATES.indexOf(gate) > GATES.indexOf(deciding)) || (ofStep && NOT_OF_STEPS.has(gate)))
    return create(GateVerdictSchema, { gate, answer: GateAnswer.NOT_ASKED });
  const exemption = exemptionOf(subject, gate);
  const passed = { gate, answer: GateAnswer.PASSED };
  return create(GateVerdictSchema, exemption === undefined ? passed : { ...passed, rule: { exemption } });
}

function exemptionOf({ priority, bypassLimits }: Subject, gate: Gate): Exemption | undefined {
  if (gate !== Gate.RATE_LIMITS && gate !== Gate.HOURLY_CAP) return undefined;
  if (priority === Priority.CRITICAL) return Exemption.CRITICAL;
  return bypassLimits && gate === Gate.RATE_LIMITS ? Exemption.BYPASS : undefined;
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
