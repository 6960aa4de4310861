import type { Tx } from "#src/store/store.ts";
import { isTimeZone } from "#src/users/time-zone.ts";
import { BUILT_IN } from "./built-in.ts";
import { fromDocument } from "./document.ts";
import { timeZone } from "./merge.ts";
import { readCopies } from "./queries.ts";

/** A user's time zone, for showing times: what the transaction sees, and nothing is held back by it. */
export async function zoneOf(tx: Tx, tenantId: string, userId: string): Promise<string> {
  const copies = await readCopies(tx, tenantId, ["", userId]);
  const [tenant, own] = ["", userId].map((id) => copies.find((copy) => copy.userId === id));
  const preferences = (copy: typeof own) => (copy?.document == null ? undefined : fromDocument(copy.document));
  const profile = { language: own?.language ?? "", timeZone: own?.timeZone ?? "" };
  const zone = timeZone({ tenant: preferences(tenant), profile, user: preferences(own) }).value;
  return isTimeZone(zone) ? zone : BUILT_IN.timeZone;
}
