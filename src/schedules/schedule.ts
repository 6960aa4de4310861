import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import { timestampFromDate } from "@bufbuild/protobuf/wkt";
import {
  OccurrenceSchema,
  type Schedule,
  ScheduleSchema,
  Schedule_State as State,
} from "#gen/posthorn/v1/schedule_service_pb.ts";
import { RecipientsSchema, type SendRequest, SendRequestSchema } from "#gen/posthorn/v1/send_service_pb.ts";
import type { Steps } from "#src/breathe.ts";
import { invalidField } from "#src/errors.ts";
import type { schedules } from "#src/store/schema/schedules.ts";
import { GENERAL } from "#src/types/type.ts";
import { isTimeZone } from "#src/users/time-zone.ts";
import { newRecurrence, recurrence, TooSeldom, wallTime } from "./recurrence.ts";
import { firesAt, firstAfter, type Timing, upcoming } from "./timing.ts";

// ACTIVE ──pause──▶ PAUSED ──resume──▶ ACTIVE
//   │                                   ▲
//   └─ no further occurrence ─▶ ENDED ──┘ updated, with occurrences again
//
// Only ACTIVE has `occurrence` and `fires_at`.

export type ScheduleRow = typeof schedules.$inferSelect;

/** What a caller says about a schedule. */
export type ScheduleDefinition = Pick<
  ScheduleRow,
  "key" | "request" | "userIds" | "usersOnly" | "type" | "priority" | "rule" | "startTime" | "timeZone"
>;

/** Where a schedule stands, which follows from its definition and the time. */
export type Standing = Pick<ScheduleRow, "finalTime" | "state" | "occurrence" | "firesAt" | "notBefore" | "endedAt">;

const HORIZON_MS = 400 * 86_400_000;
const PREVIEW = 5;

export function definitionOf({ key, request, recurrence, localStartTime, timeZone }: Schedule): ScheduleDefinition {
  const { to, ...rest } = request ?? create(SendRequestSchema);
  const audience = { ...(to ?? create(RecipientsSchema)), userIds: [] };
  return {
    key,
    request: toBinary(SendRequestSchema, { ...rest, to: audience }),
    userIds: [...new Set(to?.userIds)],
    usersOnly: !audience.everyone && audience.topics.length === 0 && audience.roles.length === 0,
    type: rest.type || GENERAL,
    priority: rest.priority,
    rule: recurrence,
    startTime: wallTime("schedule.local_start_time", localStartTime),
    timeZone,
  };
}

export function requestOf({ request, userIds }: Pick<ScheduleRow, "request" | "userIds">): SendRequest {
  const decoded = fromBinary(SendRequestSchema, request);
  return { ...decoded, to: { ...(decoded.to ?? create(RecipientsSchema)), userIds } };
}

/** What a stored schedule goes by. Throws INVALID_REQUEST naming the field when it says no time. */
export function timingOf({
  rule,
  startTime,
  timeZone,
  finalTime,
}: Pick<ScheduleRow, "rule" | "startTime" | "timeZone" | "finalTime">): Timing {
  return { recurrence: recurrence(rule, startTime, finalTime ?? undefined), zone: timeZone };
}

/** Throws INVALID_REQUEST naming the field when a schedule cannot go by this. */
export function* checkTiming({ rule, startTime, timeZone }: ScheduleDefinition, now: Date): Steps<Timing> {
  if (timeZone !== "" && !isTimeZone(timeZone)) {
    throw invalidField("schedule.time_zone", "is not a zone of the IANA database, such as Europe/Lisbon");
  }
  if (firesAt({ zone: timeZone }, startTime).getTime() > now.getTime() + HORIZON_MS) {
    throw invalidField("schedule.local_start_time", "must be at most 400 days ahead");
  }
  return yield* found(function* () {
    const timing = { recurrence: yield* newRecurrence(rule, startTime), zone: timeZone };
    // A rule whose second occurrence cannot be found could not go on after its first.
    const first = yield* firstAfter(timing, now);
    if (first !== undefined) yield* timing.recurrence.after(first);
    return timing;
  });
}

function* found<T>(look: () => Steps<T>): Steps<T> {
  try {
    return yield* look();
  } catch (error) {
    if (!(error instanceof TooSeldom)) throw error;
    throw invalidField("schedule.recurrence", "has no occurrences, or too far apart; try a greater FREQ");
  }
}

/** How a schedule stands that begins, or begins anew, now; ENDED when its rule has no occurrence that is still to come. */
export function* standing(timing: Timing, now: Date, last: string | null): Steps<Standing> {
  const occurrence = yield* found(() => firstAfter(timing, now, last ?? undefined));
  const common = { finalTime: timing.recurrence.final ?? null, notBefore: now };
  return occurrence === undefined
    ? { ...common, state: State.ENDED, occurrence: null, firesAt: null, endedAt: now }
    : { ...common, state: State.ACTIVE, occurrence, firesAt: firesAt(timing, occurrence), endedAt: null };
}

/** `next`: its next occurrences, as far as they are to be shown. */
export function toSchedule(row: ScheduleRow, next: readonly string[]): Schedule {
  return create(ScheduleSchema, {
    key: row.key,
    request: requestOf(row),
    recurrence: row.rule,
    localStartTime: row.startTime,
    timeZone: row.timeZone,
    state: row.state as State,
    nextOccurrences: next.map((localTime) =>
      create(OccurrenceSchema, {
        localTime,
        ...(row.timeZone === "" ? {} : { time: timestampFromDate(firesAt({ zone: row.timeZone }, localTime)) }),
      }),
    ),
    firedCount: BigInt(row.fired),
    missedCount: BigInt(row.missed),
    revision: row.revision,
    createTime: timestampFromDate(row.createdAt),
    updateTime: timestampFromDate(row.updatedAt),
  });
}

/** What is known without looking for it. */
export function known({ occurrence }: ScheduleRow): string[] {
  return occurrence === null ? [] : [occurrence];
}

/** The next occurrences; of a PAUSED one those that would come if it were resumed now. */
export function* preview(row: ScheduleRow, now: Date): Steps<string[]> {
  if (row.state === State.ENDED) return [];
  const timing = timingOf(row);
  function* first(): Steps<string | undefined> {
    return row.occurrence ?? (yield* firstAfter(timing, now, row.lastOccurrence ?? undefined));
  }
  return yield* upcoming(timing, first, PREVIEW);
}
