import { Priority } from "#gen/posthorn/v1/notification_pb.ts";
import { type GoodHours, goodHours, type Looks } from "#src/learning/looks.ts";
import type { CompiledPreferences } from "#src/preferences/compile.ts";
import type { TypeRules } from "#src/types/type.ts";

type About = { userId: string; type: string; priority: number };

/** What it is asked by. */
type Rules = {
  preferences(userId: string): Pick<CompiledPreferences, "timing"> | undefined;
  rules(type: string): Pick<TypeRules, "maxWaitMs"> | undefined;
};

/** For what has no use for it, which is nearly all. */
export const NOTHING_LEARNT: ReadonlyMap<string, GoodHours> = new Map();

/**
 * The good hours of those users for whom the gate will ask: whose notification may wait for one, and who want that. `read`
 * is called where there are such, once. None is in the answer of whom too little is known.
 */
export async function goodHoursOf(
  waiting: readonly About[],
  { preferences, rules }: Rules,
  read: (userIds: readonly string[]) => Promise<readonly Looks[]>,
  now: Date,
): Promise<ReadonlyMap<string, GoodHours>> {
  const asked = new Set<string>();
  for (const { userId, type, priority } of waiting) {
    if (rules(type)?.maxWaitMs === undefined || priority >= Priority.HIGH) continue;
    if (preferences(userId)?.timing !== undefined) asked.add(userId);
  }
  if (asked.size === 0) return NOTHING_LEARNT;
  const found = new Map<string, GoodHours>();
  for (const looks of await read([...asked])) {
    const good = goodHours(looks, now);
    if (good !== undefined) found.set(looks.userId, good);
  }
  return found;
}
