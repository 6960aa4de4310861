import { Temporal } from "temporal-polyfill";
import { Channel } from "#gen/posthorn/v1/notification_pb.ts";
import type { ZoneClock } from "#src/preferences/zone-clock.ts";

/**
 * How many a user gets by each outside channel in a day of theirs, as pure rules over plain state;
 * channel-limits.lua is the same rules for Redis. Days are calendar days of the recipient, as numbers since 1970-01-01.
 *
 * Each hand-over has a place in one day, behind those that were there before, and keeps it however often it is tried. One
 * that finds its day full is given a place in the next that has room, and asks again when that has come; or sooner, and then
 * takes a better one if there is. A limit that was lowered holds for places too: who is over it by now looks for another,
 * and who finds none gives up what they had. Days that the recipient's clock rules close have no places: what waited for one
 * would come on the next that is open, all of them at once.
 *
 * Of each the day, and as a fraction how far behind it stands in that, in STEPs.
 */
export type Places = Map<string, number>;

/** Room for more in a day than anybody is given, and exact in a double for any day. */
const STEP = 2 ** -26;

export type LimitedChannel = (typeof LIMITED)[number];
/** Of each channel; 0: no limit. */
export type ChannelsPerDay = { readonly [name in LimitedChannel]: number };

const LIMITED = ["email", "sms", "push", "webhook", "chat"] as const;
export const NO_LIMITS: ChannelsPerDay = { email: 0, sms: 0, push: 0, webhook: 0, chat: 0 };
export const LIMITED_CHANNELS: ReadonlyMap<Channel, LimitedChannel> = new Map([
  [Channel.EMAIL, "email"],
  [Channel.SMS, "sms"],
  [Channel.PUSH, "push"],
  [Channel.WEBHOOK, "webhook"],
  [Channel.CHAT, "chat"],
]);

/** How far ahead places are given. */
export const HORIZON_DAYS = 31;

/** A hand-over that asks for its place. */
export type Asking = {
  /** Tells it from others, however often it is tried. */
  tag: string;
  userId: string;
  channel: Channel;
  /** 0: it is only counted. */
  limit: number;
  /** Counted, never refused. */
  exempt: boolean;
  today: number;
  /** Bit n is set when nothing may come on weekday n (0: Sunday), but today: who asks has found that it may go. */
  closedDays: number;
  /** No place is taken after it; undefined: any day will do. */
  lastDay: number | undefined;
};

/**
 * `day`: where its place is; today: it goes. `used`: of today, with what is exempt. `nth`: how many have theirs in that day
 * before it. `taken`: else it would come too late, or nobody knows when, and it has none.
 */
export type Place = { day: number; used: number; nth: number; taken: boolean };

/** Finds one its place and notes it. */
export function takePlace(places: Places, { tag, limit, exempt, today, closedDays, lastDay }: Asking): Place {
  for (const [each, place] of places) if (place < today - 1) places.delete(each);
  const had = places.get(tag);
  const hadDay = had === undefined ? undefined : Math.floor(had);
  const placesOf = (day: number) => [...places.values()].filter((place) => Math.floor(place) === day);
  /** How many are before it in a day. */
  const before = (day: number) =>
    placesOf(day).filter((place) => day !== hadDay || had === undefined || place < had).length;
  const used = placesOf(today).length;
  const hasRoom = (day: number) => (day === today || !isClosed(closedDays, day)) && before(day) < limit;
  let day = today;
  if (!exempt && limit > 0) while (day - today <= HORIZON_DAYS && !hasRoom(day)) day++;
  const taken = day - today <= HORIZON_DAYS && (lastDay === undefined || day <= lastDay);
  const nth = before(day);
  if (!taken) places.delete(tag);
  else if (day !== hadDay) places.set(tag, Math.max(day, ...placesOf(day).map((place) => place + STEP)));
  return { day, used, nth, taken };
}

/** 1970-01-01 was a Thursday. */
const WEEKDAY_OF_DAY_0 = 4;

function isClosed(closedDays: number, day: number): boolean {
  return ((closedDays >> ((day + WEEKDAY_OF_DAY_0) % 7)) & 1) === 1;
}

/** The lowest of the limits there are; 0: there is none. */
export function lowest(...limits: readonly (number | undefined)[]): number {
  const those = limits.filter((limit) => limit !== undefined && limit > 0) as number[];
  return those.length === 0 ? 0 : Math.min(...those);
}

const DAY_MS = 86_400_000;
/** The turns of a day are spread over this from its first instant on. */
const SPREAD_MS = (3_600_000 * 4) / 5;

/** The recipient's calendar day. */
export function dayOf(clock: ZoneClock, atMs: number): number {
  return Math.floor((atMs + clock.stretchAt(atMs).offsetMs) / DAY_MS);
}

/** The first instant of a calendar day; where the clock leaves midnight out, of what is left of it. */
export function startOf(clock: ZoneClock, day: number): number {
  const date = Temporal.PlainDate.from("1970-01-01").add({ days: day });
  return date.toZonedDateTime(clock.zone).epochMilliseconds;
}

/**
 * When the turn of a place comes. `allowed`: the first instant, not before another, at which the recipient's clock rules let
 * it pass. `phase` (0 to 65,535) shifts a user's turns, so that not everybody's first is the first instant of the day. Where
 * the rules leave less of the day than the turns are spread over, those that would miss it come with its first.
 */
export function turnOf(
  { day, nth }: Place,
  { limit, phase, clock, allowed }: { limit: number; phase: number; clock: ZoneClock; allowed(fromMs: number): number },
): number {
  const share = Math.min(1, (nth * 65_536 + phase) / (Math.max(1, limit) * 65_536));
  const first = allowed(startOf(clock, day));
  const turn = allowed(first + Math.floor(share * SPREAD_MS));
  return dayOf(clock, turn) > dayOf(clock, first) ? first : turn;
}
