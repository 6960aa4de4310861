import type { Tx } from "#src/store/store.ts";
import { isTimeZone } from "#src/users/time-zone.ts";
import { BUILT_IN } from "./built-in.ts";
import { language, timeZone } from "./merge.ts";
import { presentLevels } from "./present-levels.ts";

/** The time zones of users as they are now: see presentLevels for what that holds back. */
export async function presentZones(
  tx: Tx,
  tenantId: string,
  userIds: readonly string[],
): Promise<ReadonlyMap<string, string>> {
  const recipients = await presentRecipients(tx, tenantId, userIds);
  return new Map([...recipients].map(([userId, { timeZone }]) => [userId, timeZone]));
}

/** The same with their languages. */
export async function presentRecipients(
  tx: Tx,
  tenantId: string,
  userIds: readonly string[],
): Promise<ReadonlyMap<string, { timeZone: string; language: string }>> {
  const levels = await presentLevels(tx, tenantId, userIds);
  return new Map(
    [...levels].map(([userId, own]) => {
      const zone = timeZone(own).value;
      return [userId, { timeZone: isTimeZone(zone) ? zone : BUILT_IN.timeZone, language: language(own).value }];
    }),
  );
}
