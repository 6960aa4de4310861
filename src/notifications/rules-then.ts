import type { DecisionRecord } from "#gen/posthorn/internal/v1/decision_pb.ts";
import type { Preferences } from "#gen/posthorn/v1/preferences_service_pb.ts";
import type { Stored } from "#src/preferences/document.ts";
import { findPreferences } from "#src/preferences/queries.ts";
import { readRevisions } from "#src/preferences/revisions.ts";
import { type RulesPassed, rulesPassed } from "#src/preferences/rules-passed.ts";
import type { ZoneClock } from "#src/preferences/zone-clock.ts";
import type { Db } from "#src/store/store.ts";
import { readTypesThen, type TypeThen } from "#src/types/revisions.ts";
import { isTimeZone } from "#src/users/time-zone.ts";
import type { NotificationRow } from "./notification.ts";

/** What a decision was drawn from. */
export type Drawn = NonNullable<DecisionRecord["drawn"]>;

/** The rules that a decision at an instant was drawn from; undefined where one of them is not kept any more. */
export type RulesThen = (drawn: Drawn, at: Date) => RulesPassed | undefined;

/**
 * Looks up the rules behind the decisions about a notification. A number that begins again, because its user or type was
 * deleted and created anew, is known by the time: what was set after a decision was not asked by it.
 */
export async function readRulesThen(
  db: Db,
  tenantId: string,
  about: Pick<NotificationRow, "userId" | "type" | "category" | "priority">,
  drawn: readonly Drawn[],
  clockOf: (zone: string) => ZoneClock,
): Promise<RulesThen> {
  if (drawn.length === 0) return () => undefined;
  const { userId, type } = about;
  const numbers = (read: (each: Drawn) => number) => [...new Set(drawn.map(read))];
  const past = await readRevisions(db, tenantId, userId, {
    user: numbers(({ preferences }) => preferences),
    tenant: numbers(({ defaultPreferences }) => defaultPreferences),
  });
  const present = {
    user: await findPreferences(db, { tenantId, userId }),
    tenant: await findPreferences(db, { tenantId, userId: "" }),
  };
  const types = await readTypesThen(
    db,
    tenantId,
    type,
    numbers((each) => each.type),
  );
  const preferencesOf = (whose: "user" | "tenant", revision: number, at: Date): Found<Preferences | undefined> => {
    if (revision === 0) return { it: undefined };
    const stored = present[whose].revision === revision ? present[whose] : past[whose].get(revision);
    return stored !== undefined && isSetBy(stored, at) ? { it: stored.preferences } : undefined;
  };
  const typeOf = (revision: number, at: Date): Found<TypeThen | undefined> => {
    if (revision === 0) return { it: undefined };
    const found = types.get(revision);
    return found !== undefined && found.since <= at ? { it: found } : undefined;
  };
  return ({ preferences, defaultPreferences, type: revision, timeZone }, at) => {
    const user = preferencesOf("user", preferences, at);
    const tenant = preferencesOf("tenant", defaultPreferences, at);
    const ofType = typeOf(revision, at);
    const zone = timeZone || "UTC";
    if (user === undefined || tenant === undefined || ofType === undefined || !isTimeZone(zone)) return undefined;
    // The language decides nothing, and the zone is kept with the decision.
    const levels = { tenant: tenant.it, profile: { language: "", timeZone: "" }, user: user.it };
    return rulesPassed({ levels, type: ofType.it }, about, clockOf(zone));
  };
}

type Found<T> = { it: T } | undefined;

function isSetBy({ updatedAt }: Stored, at: Date): boolean {
  return updatedAt !== undefined && updatedAt <= at;
}
