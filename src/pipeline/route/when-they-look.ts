import { Priority } from "#gen/posthorn/v1/notification_pb.ts";
import { type DayHours, type GoodHours, goodHours, type Looks } from "#src/learning/looks.ts";
import type { CompiledPreferences } from "#src/preferences/compile.ts";
import type { TypeRules } from "#src/types/type.ts";

type About = { userId: string; type: string; priority: number };

/** What it is asked by. */
type Rules = {
  preferences(userId: string): Pick<CompiledPreferences, "timing"> | undefined;
  rules(type: string): Pick<TypeRules, "maxWaitMs"> | undefined;
};

type Timing = NonNullable<CompiledPreferences["timing"]>;

/** For which hours of its recipient a notification waits, and how long at most. */
export type Wait = { readonly hours: DayHours; readonly maxMs: number; readonly byType: boolean };

/** Quiet hours that were learnt hold nothing for longer. */
const QUIET_MS = 24 * 3_600_000;

/** What a notification may wait for, the better hours first: good ones, as its type says, and the end of quiet ones. */
export function waitsOf(
  { asTypesSay, quietAsLearnt }: Timing,
  rules: Pick<TypeRules, "maxWaitMs"> | undefined,
  good: GoodHours,
): Wait[] {
  const maxMs = asTypesSay ? rules?.maxWaitMs : undefined;
  return [
    ...(maxMs === undefined ? [] : [{ hours: good, maxMs, byType: true }]),
    ...(quietAsLearnt ? [{ hours: good.awake, maxMs: QUIET_MS, byType: false }] : []),
  ];
}

/** For what has no use for it, which is nearly all. */
export const NOTHING_LEARNT: ReadonlyMap<string, GoodHours> = new Map();

/**
 * The good hours of those users for whom the gate will ask: whose notification may wait for one, by its type or their
 * own word. `read` is called where there are such, once. None is in the answer of whom too little is known.
 */
export async function goodHoursOf(
  waiting: readonly About[],
  { preferences, rules }: Rules,
  read: (userIds: readonly string[]) => Promise<readonly Looks[]>,
  now: Date,
): Promise<ReadonlyMap<string, GoodHours>> {
  const asked = new Set<string>();
  for (const { userId, type, priority } of waiting) {
    if (priority >= Priority.HIGH) continue;
    const timing = preferences(userId)?.timing;
    if (timing?.quietAsLearnt || (timing?.asTypesSay && rules(type)?.maxWaitMs !== undefined)) asked.add(userId);
  }
  if (asked.size === 0) return NOTHING_LEARNT;
  const found = new Map<string, GoodHours>();
  for (const looks of await read([...asked])) {
    const good = goodHours(looks, now);
    if (good !== undefined) found.set(looks.userId, good);
  }
  return found;
}
