const HOUR_MS = 3_600_000;
const DAY_MS = 24 * HOUR_MS;

/** In which a look comes to count half: slow enough for four weekends, quick enough for a new job. */
export const HALF_LIFE_MS = 28 * DAY_MS;
/** Hours looked in, and the time between the first and the last, from which on they are gone by. */
export const ENOUGH_LOOKS = 20;
export const ENOUGH_MS = 7 * DAY_MS;
/** Of what the best hour has: what a good one has at least, and one that is not quiet. */
const GOOD_SHARE = 0.5;
const AWAKE_SHARE = 0.1;

/** Hours of a weekday, then those of a day of the weekend. */
export const CELLS = 48;

/**
 * In which hours of their own clock a user looked, as stored. Old looks shall count less, and nobody can come by all rows
 * to make them so: instead what a look adds doubles with every half-life since the first. (That is exact, and ends after
 * 80 years.)
 */
export type Looks = { userId: string; weights: readonly number[]; since: Date; lastHour: Date };

/** Hours of such days: bit n stands for hour n. */
export type DayHours = { readonly weekday: number; readonly weekend: number };

/** What a user's looks say: which hours are good ones, and in which of all the user looks now and then. */
export type GoodHours = DayHours & { readonly awake: DayHours };

/** An hour of the wall clock: which of the cells it is, and the instant at which it begins. */
export type LocalHour = { cell: number; beginsAt: number };

/** The hour in which an instant lies; `offsetMs`: how far the zone is ahead of UTC then. */
export function localHour(instantMs: number, offsetMs: number): LocalHour {
  const wallMs = instantMs + offsetMs;
  const into = ((wallMs % HOUR_MS) + HOUR_MS) % HOUR_MS;
  const hours = Math.round((wallMs - into) / HOUR_MS);
  // 1970-01-01 was a Thursday.
  const day = (((Math.floor(hours / 24) + 4) % 7) + 7) % 7;
  const hour = ((hours % 24) + 24) % 24;
  return { cell: (day === 0 || day === 6 ? 24 : 0) + hour, beginsAt: instantMs - into };
}

/** What each cell counts at an instant. */
export function countedAt({ weights, since }: Looks, now: Date): number[] {
  const scale = 2 ** (-(now.getTime() - since.getTime()) / HALF_LIFE_MS);
  return Array.from({ length: CELLS }, (_, cell) => (weights[cell] ?? 0) * scale);
}

/** The hours in which the user usually looks; undefined: too little is known. Pure. */
export function goodHours(looks: Looks, now: Date): GoodHours | undefined {
  const counted = countedAt(looks, now);
  if (looks.lastHour.getTime() - looks.since.getTime() < ENOUGH_MS || sum(counted) < ENOUGH_LOOKS) return undefined;
  const [weekday, weekend] = [counted.slice(0, 24), counted.slice(24)];
  const both = weekday.map((count, hour) => count + (weekend[hour] ?? 0));
  const known = (own: readonly number[], share: number) => withShare(sum(own) < ENOUGH_LOOKS ? both : own, share);
  const those = (share: number): DayHours => ({ weekday: known(weekday, share), weekend: known(weekend, share) });
  return { ...those(GOOD_SHARE), awake: those(AWAKE_SHARE) };
}

/** Whether a cell is one of these hours. */
export function isGood({ weekday, weekend }: DayHours, cell: number): boolean {
  return (((cell < 24 ? weekday : weekend) >> (cell % 24)) & 1) === 1;
}

/** Those of the hours that are of the days that a cell is one of, 0 to 23. */
export function goodHoursLike(good: DayHours, cell: number): number[] {
  const of = cell < 24 ? 0 : 24;
  return Array.from({ length: 24 }, (_, hour) => hour).filter((hour) => isGood(good, of + hour));
}

function withShare(counts: readonly number[], share: number): number {
  const least = Math.max(...counts) * share;
  return counts.reduce((bits, count, hour) => (count >= least ? bits | (1 << hour) : bits), 0);
}

export function sum(counts: readonly number[]): number {
  return counts.reduce((total, count) => total + count, 0);
}
