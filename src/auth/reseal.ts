import type { Store } from "#src/store/store.ts";
import { issuerPlace } from "./issuer.ts";
import { changeSealedSecret, lockSealedIssuers } from "./queries.ts";
import type { Sealer } from "./seal.ts";

const PAGE = 200;

/**
 * Seals again, under the current master key, what was sealed under a former one; afterwards the former keys can leave
 * the configuration. Safe to run beside everything else and as often as one likes. Returns how many were sealed again.
 */
export async function resealSecrets(store: Pick<Store, "systemDb">, sealer: Sealer): Promise<number> {
  let count = 0;
  let after: { tenantId: string; id: string } | undefined;
  do {
    const page = await store.systemDb(async (db) => {
      const rows = await lockSealedIssuers(db, after, PAGE);
      for (const row of rows) {
        if (!sealer.isStale(row.sealedSecret)) continue;
        const place = issuerPlace(row.tenantId, row.id);
        await changeSealedSecret(db, row, sealer.seal(sealer.open(row.sealedSecret, place), place));
        count++;
      }
      return rows;
    });
    after = page.length < PAGE ? undefined : page.at(-1);
  } while (after !== undefined);
  return count;
}
