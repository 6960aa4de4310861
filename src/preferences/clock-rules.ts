import type { DoNotDisturbPeriod, QuietHours } from "#gen/posthorn/v1/preferences_service_pb.ts";
import type { ZoneClock } from "./zone-clock.ts";

const DAY = 24 * 60;
export const WEEK = 7 * DAY;

/** Parts of a week in which something waits: sorted, disjoint, minutes from Sunday 00:00 by the wall clock. */
export type Blocks = readonly (readonly [start: number, end: number])[];

/** When notifications wait, and for which rule. `all` is the three together. */
export type Pattern = { quietHours: Blocks; doNotDisturb: Blocks; weekend: Blocks; all: Blocks };

/** One pattern for CRITICAL, one for the rest. */
type Patterns = { usual: Pattern; critical: Pattern };

/** A user's clock rules, made for many questions. */
export type ClockRules = Patterns & {
  clock: ZoneClock;
  /** For what these senders send; undefined where it is for them as for all. */
  contacts: (Patterns & { senders: ReadonlySet<string> }) | undefined;
};

/** What the rules are made of, all in force. */
export type ClockSettings = {
  quietHours: Pick<QuietHours, "enabled" | "startTime" | "endTime" | "allowCritical">;
  doNotDisturb: { enabled?: boolean; periods: readonly DoNotDisturbPeriod[] };
  emergencyContacts: { enabled: boolean; userIds: readonly string[] };
  weekendsEnabled: boolean;
};

/**
 * All rules go by what the wall clock of the user's zone shows: where it is set back, a minute that is shown twice is
 * judged the same twice; what lies in a gap never happens. Quiet hours with equal start and end fill the day, a period
 * with equal start and end lasts 24 hours. CRITICAL passes weekends, and quiet hours and periods that allow it; emergency
 * contacts pass periods that allow them, and nothing else.
 *
 * Undefined when no rule is switched on, which is what most users want: nothing needs to look at the clock then.
 */
export function clockRules(settings: ClockSettings, clock: () => ZoneClock): ClockRules | undefined {
  const usual = pattern(settings, { critical: false, contact: false });
  if (usual.all.length === 0) return undefined;
  const critical = pattern(settings, { critical: true, contact: false });
  return { clock: clock(), usual, critical, contacts: contactRules(settings) };
}

/** The pattern that holds for a notification. */
export function patternFor(rules: ClockRules, about: { critical: boolean; senderId: string | undefined }): Pattern {
  const { contacts } = rules;
  const known = contacts !== undefined && about.senderId !== undefined && contacts.senders.has(about.senderId);
  const { critical, usual } = known ? contacts : rules;
  return about.critical ? critical : usual;
}

/** The weekdays that are blocked as a whole: bit 0 is Sunday's. */
export function closedDays(blocks: Blocks): number {
  let closed = 0;
  for (let day = 0; day < 7; day++)
    if (blocks.some(([start, end]) => start <= day * DAY && end >= (day + 1) * DAY)) closed |= 1 << day;
  return closed;
}

/** When one period holds. */
export function blocksOf({ dayOfWeek, startTime, endTime }: DoNotDisturbPeriod): Blocks {
  return merged([span(dayOfWeek, startTime, endTime)]);
}

function contactRules(settings: ClockSettings): ClockRules["contacts"] {
  const { doNotDisturb, emergencyContacts } = settings;
  if (!emergencyContacts.enabled || emergencyContacts.userIds.length === 0 || !doNotDisturb.enabled) return undefined;
  if (!doNotDisturb.periods.some((period) => period.allowEmergencyContacts)) return undefined;
  return {
    senders: new Set(emergencyContacts.userIds),
    usual: pattern(settings, { critical: false, contact: true }),
    critical: pattern(settings, { critical: true, contact: true }),
  };
}

function pattern(
  { quietHours, doNotDisturb, weekendsEnabled }: ClockSettings,
  { critical, contact }: { critical: boolean; contact: boolean },
): Pattern {
  const passes = (allowCritical: boolean | undefined) => critical && (allowCritical ?? true);
  const quiet: [number, number][] = [];
  if (quietHours.enabled && !passes(quietHours.allowCritical)) {
    for (let day = 0; day < 7; day++) quiet.push(span(day, quietHours.startTime ?? "", quietHours.endTime ?? ""));
  }
  const periods = doNotDisturb.enabled
    ? doNotDisturb.periods.filter(
        (period) => !period.inactive && !passes(period.allowCritical) && !(contact && period.allowEmergencyContacts),
      )
    : [];
  const disturb = periods.map((period) => span(period.dayOfWeek, period.startTime, period.endTime));
  const weekend: [number, number][] = weekendsEnabled || critical ? [] : [[6 * DAY, WEEK + DAY]];
  return {
    quietHours: merged(quiet),
    doNotDisturb: merged(disturb),
    weekend: merged(weekend),
    all: merged([...quiet, ...disturb, ...weekend]),
  };
}

/** From a time of a day to the next time the clock shows `end`, which may be on the next day. */
function span(day: number, start: string, end: string): [number, number] {
  const from = minutes(start);
  const to = minutes(end);
  return [day * DAY + from, day * DAY + (to > from ? to : to + DAY)];
}

function minutes(time: string): number {
  return Number(time.slice(0, 2)) * 60 + Number(time.slice(3, 5));
}

/** Cuts what goes over the end of the week, sorts, and joins what touches. */
function merged(spans: readonly [number, number][]): Blocks {
  const cut = spans.flatMap(([start, end]): [number, number][] =>
    end <= WEEK
      ? [[start, end]]
      : [
          [start, WEEK],
          [0, end - WEEK],
        ],
  );
  cut.sort((a, b) => a[0] - b[0]);
  const blocks: [number, number][] = [];
  for (const [start, end] of cut) {
    const last = blocks.at(-1);
    if (last !== undefined && start <= last[1]) last[1] = Math.max(last[1], end);
    else blocks.push([start, end]);
  }
  return blocks;
}
