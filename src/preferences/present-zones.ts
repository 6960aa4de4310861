import { texts } from "#src/store/arrays.ts";
import type { Tx } from "#src/store/store.ts";
import { isTimeZone } from "#src/users/time-zone.ts";
import { BUILT_IN } from "./built-in.ts";
import { fromDocument } from "./document.ts";
import { fenceNames } from "./fence.ts";
import { timeZone } from "./merge.ts";
import { readCopies } from "./queries.ts";

/**
 * The time zones of users as they are now. What the transaction stores by them will be found by a change of them: it waits
 * until the transaction ends (see fence.ts). Call it before the transaction locks any notification.
 */
export async function presentZones(
  tx: Tx,
  tenantId: string,
  userIds: readonly string[],
): Promise<ReadonlyMap<string, string>> {
  const names = texts(fenceNames(tenantId, ["", ...userIds]));
  // Two statements, sent together: what the second sees was committed before the first had its locks.
  const [, copies] = await Promise.all([
    tx`
      select pg_advisory_xact_lock_shared(lock) from (
        select distinct hashtextextended(name, 0) as lock from unnest(${names}::text[]) as t (name) order by lock) as locks`,
    readCopies(tx, tenantId, ["", ...new Set(userIds)]),
  ]);
  const preferencesOf = ({ document }: (typeof copies)[number]) =>
    document === null ? undefined : fromDocument(document);
  const ofAll = copies.find(({ userId }) => userId === "");
  const tenant = ofAll && preferencesOf(ofAll);
  return new Map(
    copies.map((copy) => {
      const { language, timeZone: named } = copy;
      const levels = { tenant, profile: { language, timeZone: named }, user: preferencesOf(copy) };
      const zone = timeZone(levels).value;
      return [copy.userId, isTimeZone(zone) ? zone : BUILT_IN.timeZone];
    }),
  );
}
