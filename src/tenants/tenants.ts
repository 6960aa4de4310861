import { create } from "@bufbuild/protobuf";
import { timestampFromDate } from "@bufbuild/protobuf/wkt";
import { Scope, type Tenant, Tenant_State, TenantSchema } from "#gen/posthorn/v1/admin_service_pb.ts";
import { writeAudit } from "#src/audit/queries.ts";
import { addApiKey } from "#src/auth/api-keys.ts";
import type { RandomBytes } from "#src/auth/random.ts";
import type { Sealer } from "#src/auth/seal.ts";
import { ensureOwnIssuer } from "#src/auth/token-issuers.ts";
import type { Invalidations } from "#src/broker/invalidations.ts";
import type { Clock } from "#src/clock.ts";
import { notFound } from "#src/errors.ts";
import type { NewId } from "#src/ids.ts";
import { bringBack } from "#src/schedules/queries.ts";
import type { Db, Store } from "#src/store/store.ts";
import { seedGeneralType } from "#src/types/seed.ts";
import { changeTenant, insertTenant, lockTenant, type TenantRow } from "./queries.ts";

export type TenantsDeps = {
  store: Pick<Store, "systemDb">;
  sealer: Sealer;
  clock: Clock;
  newId: NewId;
  random: RandomBytes;
};

/** Creates a tenant that is ready to be used: with the type "general" and an issuer of user tokens of its own. */
export function createTenant(deps: TenantsDeps, actor: string, displayName: string): Promise<TenantRow> {
  return deps.store.systemDb((db) => addTenant(db, deps, actor, displayName));
}

/**
 * Creates a tenant and an API key that may do everything in it: for `npm start`, the command line and the demo, where
 * nobody holds an operator key yet.
 */
export function createTenantWithKey(
  deps: TenantsDeps,
  displayName: string,
): Promise<{ tenantId: string; apiKey: string }> {
  return deps.store.systemDb(async (db) => {
    const { id: tenantId } = await addTenant(db, deps, "operator", displayName);
    const scopes = Object.values(Scope).filter((scope) => scope !== Scope.UNSPECIFIED);
    const key = { displayName: "Everything", scopes, expiresAt: undefined };
    const { secret } = await addApiKey(db, deps, { tenantId, actor: "operator" }, key);
    return { tenantId, apiKey: secret };
  });
}

async function addTenant(db: Db, deps: TenantsDeps, actor: string, displayName: string): Promise<TenantRow> {
  const { clock, newId } = deps;
  const now = clock();
  const tenant = await insertTenant(db, { id: newId(), displayName, state: Tenant_State.ACTIVE, createdAt: now });
  await seedGeneralType(db, tenant.id, now);
  await ensureOwnIssuer(db, deps, tenant.id);
  const target = `tenant:${tenant.id}`;
  await writeAudit(db, { tenantId: tenant.id, id: newId(), actor, action: "tenant.create", target });
  return tenant;
}

/** Renames, suspends or resumes a tenant; what is undefined stays. */
export async function updateTenant(
  {
    store,
    invalidations,
    newId,
    clock,
  }: Pick<TenantsDeps, "store" | "newId" | "clock"> & {
    invalidations: Pick<Invalidations, "publish">;
  },
  actor: string,
  id: string,
  wanted: { displayName: string | undefined; state: Tenant_State | undefined },
): Promise<TenantRow> {
  const row = await store.systemDb(async (db) => {
    const before = await lockTenant(db, id);
    if (before === undefined) throw notFound("tenant");
    const { displayName = before.displayName, state = before.state } = wanted;
    const actions = [
      ...(displayName === before.displayName ? [] : ["tenant.update"]),
      ...(state === before.state ? [] : [state === Tenant_State.SUSPENDED ? "tenant.suspend" : "tenant.resume"]),
    ];
    if (actions.length === 0) return before;
    for (const action of actions) {
      await writeAudit(db, { tenantId: before.id, id: newId(), actor, action, target: `tenant:${before.id}` });
    }
    const changed = await changeTenant(db, before, { displayName, state });
    if (state !== before.state && state === Tenant_State.ACTIVE) await bringBack(db, before.id, clock());
    return changed;
  });
  // Also when nothing changed: a call that was cut short is completed by its repetition.
  invalidations.publish("tenant", row.id, row.id);
  return row;
}

export function toTenant(row: TenantRow): Tenant {
  return create(TenantSchema, {
    id: row.id,
    displayName: row.displayName,
    state: row.state as Tenant_State,
    createTime: timestampFromDate(row.createdAt),
  });
}
