// Why a notification was decided as it was, for people who have to answer its recipient.
import { durationMs, type Timestamp, timestampDate } from "@bufbuild/protobuf/wkt";
import { Temporal } from "temporal-polyfill";
import {
  type Decision,
  Exemption,
  type ExplainedEntry,
  Gate,
  GateAnswer,
  type GateVerdict,
  type Rule,
} from "#gen/posthorn/v1/explain_pb.ts";
import {
  Channel,
  ChannelSchema,
  type Notification,
  PrioritySchema,
  Reason,
  ReasonSchema,
  Status,
  StatusSchema,
  type TimelineEntry,
} from "#gen/posthorn/v1/notification_pb.ts";
import { Digest_ModeSchema, Digest_Mode as Mode, PreferenceLevel } from "#gen/posthorn/v1/preferences_service_pb.ts";
import { enumWord } from "./parse.ts";
import { columns, type Paint, plain, when } from "./print.ts";

/** Every gate, as the statement that holds where it passes. */
const GATES: Record<Exclude<Gate, typeof Gate.UNSPECIFIED>, string> = {
  [Gate.EXPIRY]: "has not expired",
  [Gate.TYPE_EXISTS]: "its type exists",
  [Gate.OPT_OUT]: "wants notifications",
  [Gate.TYPE_SWITCH]: "wants this type and category",
  [Gate.CHANNEL_SWITCH]: "wants this channel",
  [Gate.CHANNEL_AVAILABLE]: "the channel is there",
  [Gate.MINIMUM_PRIORITY]: "is urgent enough",
  [Gate.SUBSCRIPTIONS]: "subscriptions let it through",
  [Gate.SCHEDULE]: "its time has come",
  [Gate.QUIET_HOURS]: "no quiet hours",
  [Gate.DO_NOT_DISTURB]: "no do-not-disturb period",
  [Gate.WEEKEND]: "no free weekend",
  [Gate.DIGEST]: "does not wait for a digest",
  [Gate.OPTIMAL_TIMING]: "waits for no better hour",
  [Gate.BATCH]: "does not wait for others",
  [Gate.HOURLY_CAP]: "the hourly cap has room",
  [Gate.RATE_LIMITS]: "the rate limits have room",
};

const LEVELS: Record<PreferenceLevel, string> = {
  [PreferenceLevel.UNSPECIFIED]: "",
  [PreferenceLevel.BUILT_IN]: "built in",
  [PreferenceLevel.TENANT]: "the tenant's default",
  [PreferenceLevel.PROFILE]: "by the user's profile",
  [PreferenceLevel.USER]: "set by the user",
  [PreferenceLevel.CATEGORY]: "set for the category",
  [PreferenceLevel.TYPE]: "set for the type",
};

const DAYS = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"];

/** What it is about, in one line. */
export function headline(notification: Notification, bypassedBy: string, paint: Paint): string {
  const { id, userId, type, priority, status, reason, content } = notification;
  const about = [
    id,
    plain(userId),
    plain(type),
    enumWord(PrioritySchema, priority),
    paint("bold", outcome(status, reason)),
    plain(content?.title ?? ""),
  ];
  return about.join("  ") + (bypassedBy === "" ? "" : `\nlimits passed by bypass, by ${plain(bypassedBy)}`);
}

/** What happened, and where it was a decision, a table of what was asked. */
export function entryLines({ entry, decision }: ExplainedEntry, timeZone: string, paint: Paint): string[] {
  if (entry === undefined) return [];
  const zone = decision?.timeZone || timeZone;
  const lines = ["", `${paint("bold", both(entry.time, zone))}  ${told(entry, zone)}`];
  if (decision === undefined) return lines;
  const known = decision.versions;
  const versions =
    known === undefined
      ? "by rules whose versions are not known any more"
      : `by the user's preferences ${revision(known.preferences)}, the tenant's ${revision(known.defaultPreferences)}, the type ${revision(known.type)}`;
  return [...lines, paint("dim", `  ${versions}`), ...table(decision, zone, paint)];
}

function revision(count: number): string {
  return count === 0 ? "(none)" : `(revision ${count})`;
}

function table({ channels }: Decision, zone: string, paint: Paint): string[] {
  const heads = channels.map(({ channel }) => paint("underline", channelWord(channel)));
  const gates = channels.find(({ gates }) => gates.length > 0)?.gates ?? [];
  const rows = gates.map(({ gate }) => [
    GATES[gate as keyof typeof GATES] ?? `gate ${gate}`,
    ...channels.map(({ gates }) =>
      cell(
        gates.find((each) => each.gate === gate),
        zone,
        paint,
      ),
    ),
  ]);
  return columns([["", ...heads], ...rows], "  ");
}

function cell(verdict: GateVerdict | undefined, zone: string, paint: Paint): string {
  switch (verdict?.answer) {
    case GateAnswer.PASSED:
      return paint("green", `yes${passed(verdict)}`);
    case GateAnswer.HELD:
      return paint("yellow", `NO: held until ${short(verdict.until, zone)}${because(verdict)}`);
    case GateAnswer.COLLECTED:
      return paint("yellow", `NO: collected until ${short(verdict.until, zone)}${because(verdict)}`);
    case GateAnswer.SUPPRESSED:
      return paint("red", `NO: never${because(verdict)}`);
    default:
      return paint("dim", "-");
  }
}

/** What the rule said that let it pass, and why, where it would have held it. */
function passed({ gate, rule }: GateVerdict): string {
  if (rule === undefined) return "";
  const words = rule.enabled === false ? ["off"] : values(gate, rule);
  const byWhom = rule.level > PreferenceLevel.BUILT_IN ? (LEVELS[rule.level] ?? "") : "";
  const parts = [...words, rule.byType ? "as the type says" : "", byWhom].filter((part) => part !== "");
  return `${EXEMPT[rule.exemption] ?? ""}${parts.length === 0 ? "" : ` (${parts.join(", ")})`}`;
}

const EXEMPT: Record<Exemption, string> = {
  [Exemption.UNSPECIFIED]: "",
  [Exemption.CRITICAL]: ", CRITICAL passes",
  [Exemption.BYPASS]: ", sent past the limits",
  [Exemption.EMERGENCY_CONTACT]: ", from an emergency contact",
};

function because({ gate, rule }: GateVerdict): string {
  const parts = [
    ...(rule === undefined ? [] : values(gate, rule)),
    rule?.byType ? "as the type says" : "",
    LEVELS[rule?.level ?? PreferenceLevel.UNSPECIFIED] ?? "",
  ].filter((part) => part !== "");
  return parts.length === 0 ? "" : ` (${parts.join(", ")})`;
}

/** What the rule says, and what it saw. */
function values(gate: Gate, rule: Rule): string[] {
  const { limit } = rule;
  if (limit !== undefined) {
    const cap = limit.maxPerHour === 0 ? "" : `, of ${limit.maxPerHour} an hour`;
    return [`${enumWord(ReasonSchema, limit.window)}: ${limit.usage} of ${limit.limit} used${cap}`];
  }
  switch (gate) {
    case Gate.SUBSCRIPTIONS:
      return rule.subscriptionIds.length === 0 ? [] : [`asked: ${rule.subscriptionIds.map(plain).join(", ")}`];
    case Gate.QUIET_HOURS:
      return rule.startTime === "" ? [] : [`${rule.startTime}–${rule.endTime}`];
    case Gate.DO_NOT_DISTURB:
      return rule.startTime === "" ? [] : [`${DAYS[rule.dayOfWeek ?? 0]} ${rule.startTime}–${rule.endTime}`];
    case Gate.MINIMUM_PRIORITY:
      return rule.minimumPriority === 0 ? [] : [`${enumWord(PrioritySchema, rule.minimumPriority)} at least`];
    case Gate.OPTIMAL_TIMING:
      return rule.goodHours.length === 0 ? [] : [`usually looks at ${hoursWords(rule.goodHours)}`];
    case Gate.CHANNEL_SWITCH:
      return rule.restricted ? ["for what is CRITICAL alone"] : [];
    case Gate.DIGEST: {
      const words = rule.digestMode === Mode.UNSPECIFIED ? [] : [digestWords(rule)];
      return rule.restricted ? [...words, "e-mail for digests alone"] : words;
    }
    case Gate.BATCH: {
      if (rule.maxSize === 0) return [];
      const minutes = rule.window === undefined ? "" : ` within ${Math.round(durationMs(rule.window) / 60_000)} min`;
      return [`up to ${rule.maxSize}${minutes}`];
    }
    default:
      return [];
  }
}

/** "8–10, 19": each is the hour that begins then. */
function hoursWords(hours: readonly number[]): string {
  const runs: number[][] = [];
  for (const hour of hours) {
    const run = runs.at(-1);
    if (run !== undefined && run.at(-1) === hour - 1) run.push(hour);
    else runs.push([hour]);
  }
  return runs.map((run) => (run.length === 1 ? `${run[0]}` : `${run[0]}–${run.at(-1)}`)).join(", ");
}

function digestWords({ digestMode, digestTime, digestDays }: Rule): string {
  const word = enumWord(Digest_ModeSchema, digestMode);
  if (digestMode === Mode.HOURLY || digestMode === Mode.IMMEDIATE) return word;
  const days = digestMode === Mode.WEEKLY ? ` on ${digestDays.map((day) => DAYS[day]).join(", ")}` : "";
  return `${word}${days} at ${digestTime}`;
}

function told(entry: TimelineEntry, zone: string): string {
  const { status, channel, reason, actor, step, confirmed, verdicts } = entry;
  const what = confirmed
    ? "confirmed"
    : status === Status.UNSPECIFIED
      ? (ofChannelLimit(entry) ?? stepWords(verdicts.length, reason))
      : outcome(status, reason);
  const where = channel === Channel.UNSPECIFIED ? "" : `, ${channelWord(channel)}`;
  const which = step === 0 ? "" : `, step ${step} of its escalation`;
  const until = verdicts.find((verdict) => verdict.until !== undefined)?.until;
  const next = until === undefined ? "" : ` until ${short(until, zone)}`;
  return `${what}${next}${where}${which}${actor === "posthorn" ? "" : `, by ${plain(actor)}`}`;
}

/** What a limit of its channel holds, and how that stood. */
function ofChannelLimit({ channel, reason, rateLimit }: TimelineEntry): string | undefined {
  if (channel === Channel.UNSPECIFIED || rateLimit === undefined) return undefined;
  return `held (${enumWord(ReasonSchema, reason)}: ${rateLimit.usage} of ${rateLimit.limit} used)`;
}

function stepWords(verdicts: number, reason: Reason): string {
  if (reason === Reason.UNSPECIFIED) return "handed over";
  if (reason === Reason.OUTCOME_UNKNOWN) return "handed over, and nobody knows whether it was taken";
  return `${verdicts > 0 ? "not handed over" : "ended"}: ${enumWord(ReasonSchema, reason)}`;
}

function outcome(status: Status, reason: Reason): string {
  const word = enumWord(StatusSchema, status);
  return reason === Reason.UNSPECIFIED ? word : `${word} (${enumWord(ReasonSchema, reason)})`;
}

export function channelWord(channel: Channel): string {
  return channel === Channel.IN_APP ? "inbox" : enumWord(ChannelSchema, channel);
}

/** "Fri 2026-11-27 23:10:00 Europe/Berlin (22:10:00Z)" */
function both(time: Timestamp | undefined, zone: string): string {
  const local = there(time, zone);
  if (time === undefined || local === undefined) return when(time);
  return zone === "UTC" ? `${local} UTC` : `${local} ${zone} (${when(time)})`;
}

/** To the minute: "Sat 2026-11-28 08:00". */
export function short(time: Timestamp | undefined, zone: string): string {
  return there(time, zone)?.slice(0, -3) ?? when(time);
}

function there(time: Timestamp | undefined, zone: string): string | undefined {
  if (time === undefined) return undefined;
  try {
    const local = Temporal.Instant.fromEpochMilliseconds(timestampDate(time).getTime()).toZonedDateTimeISO(zone);
    const text = local.toPlainDateTime().toString({ smallestUnit: "second" }).replace("T", " ");
    return `${DAYS[local.dayOfWeek]?.slice(0, 3)} ${text}`;
  } catch {
    return undefined; // A zone that this machine does not know.
  }
}
