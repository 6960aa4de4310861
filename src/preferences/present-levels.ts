import { texts } from "#src/store/arrays.ts";
import type { Tx } from "#src/store/store.ts";
import { fromDocument } from "./document.ts";
import { fenceNames } from "./fence.ts";
import type { Levels } from "./merge.ts";
import { readCopies } from "./queries.ts";

/**
 * What users' values are drawn from, as it is now. What the transaction stores by it will be found by a change of it: that
 * waits until the transaction ends (see fence.ts). Call it before the transaction locks any notification.
 */
export async function presentLevels(
  tx: Tx,
  tenantId: string,
  userIds: readonly string[],
): Promise<ReadonlyMap<string, Levels>> {
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
      const { language, timeZone } = copy;
      return [copy.userId, { tenant, profile: { language, timeZone }, user: preferencesOf(copy) }];
    }),
  );
}
