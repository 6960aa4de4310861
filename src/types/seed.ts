import type { Db } from "#src/store/store.ts";
import { insertTypes } from "./queries.ts";
import { GENERAL_DEFINITION } from "./type.ts";

/** Gives a new tenant the type "general", which Send takes when none is named. Idempotent. */
export async function seedGeneralType(db: Db, tenantId: string, now: Date): Promise<void> {
  await insertTypes(db, tenantId, [GENERAL_DEFINITION], now);
}
