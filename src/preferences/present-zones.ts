import type { Tx } from "#src/store/store.ts";
import { isTimeZone } from "#src/users/time-zone.ts";
import { BUILT_IN } from "./built-in.ts";
import { timeZone } from "./merge.ts";
import { presentLevels } from "./present-levels.ts";

/** The time zones of users as they are now: see presentLevels for what that holds back. */
export async function presentZones(
  tx: Tx,
  tenantId: string,
  userIds: readonly string[],
): Promise<ReadonlyMap<string, string>> {
  const levels = await presentLevels(tx, tenantId, userIds);
  return new Map(
    [...levels].map(([userId, own]) => {
      const zone = timeZone(own).value;
      return [userId, isTimeZone(zone) ? zone : BUILT_IN.timeZone];
    }),
  );
}
