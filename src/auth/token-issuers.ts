import { create } from "@bufbuild/protobuf";
import { timestampFromDate } from "@bufbuild/protobuf/wkt";
import { TokenAlgorithm, type TokenIssuer, TokenIssuerSchema } from "#gen/posthorn/v1/admin_service_pb.ts";
import { ErrorReason } from "#gen/posthorn/v1/error_pb.ts";
import { writeAudit } from "#src/audit/queries.ts";
import type { Invalidations } from "#src/broker/invalidations.ts";
import type { Clock } from "#src/clock.ts";
import { Fault } from "#src/errors.ts";
import type { NewId } from "#src/ids.ts";
import type { Db, Store } from "#src/store/store.ts";
import type { By } from "./api-keys.ts";
import { publishChange } from "./changes.ts";
import { issuerPlace, OWN_AUDIENCE, ownIssuer } from "./issuer.ts";
import type { IssuerKey } from "./issuer-key.ts";
import { findTokenIssuer, insertTokenIssuer, removeTokenIssuer, type TokenIssuerRow } from "./queries.ts";
import type { RandomBytes } from "./random.ts";
import type { Sealer } from "./seal.ts";

export type TokenIssuersDeps = {
  store: Pick<Store, "tenantDb">;
  invalidations: Pick<Invalidations, "publish">;
  sealer: Sealer;
  clock: Clock;
  newId: NewId;
};

export type WantedIssuer = { issuer: string; audience: string; algorithm: TokenAlgorithm; key: IssuerKey };

/** Trusts an issuer. Throws ALREADY_EXISTS when its tokens would belong to two tenants, or to one twice. */
export async function trustIssuer(deps: TokenIssuersDeps, by: By, wanted: WantedIssuer): Promise<TokenIssuerRow> {
  const { store, invalidations, sealer, clock, newId } = deps;
  const { tenantId, actor } = by;
  const { key, ...names } = wanted;
  const id = newId();
  const row = await store.tenantDb(tenantId, async (db) => {
    const stored = await insertTokenIssuer(db, {
      tenantId,
      id,
      ...names,
      sealedSecret: key.kind === "secret" ? sealer.seal(key.secret, issuerPlace(tenantId, id)) : null,
      publicKeyPem: key.kind === "pem" ? key.pem : null,
      jwksUrl: key.kind === "jwks" ? key.url : null,
      createdAt: clock(),
    });
    if (stored === undefined) {
      throw new Fault(ErrorReason.ALREADY_EXISTS, {
        message: "An issuer with this name and audience is trusted already. Choose an audience of your own.",
        metadata: { resource: "token_issuer" },
      });
    }
    await writeAudit(db, { tenantId, id: newId(), actor, action: "token_issuer.create", target: `token_issuer:${id}` });
    return stored;
  });
  publishIssuer(invalidations, row);
  return row;
}

/**
 * Stops trusting an issuer; nothing happens when there is none. The tenant's own issuer comes back with a new secret when
 * the next token is signed, so deleting it is how that secret is replaced.
 */
export async function distrustIssuer(deps: TokenIssuersDeps, by: By, id: string): Promise<void> {
  const { store, invalidations, newId } = deps;
  const { tenantId, actor } = by;
  const row = await store.tenantDb(tenantId, async (db) => {
    const removed = await removeTokenIssuer(db, tenantId, id);
    if (removed === undefined) return undefined;
    await writeAudit(db, { tenantId, id: newId(), actor, action: "token_issuer.delete", target: `token_issuer:${id}` });
    return removed;
  });
  if (row !== undefined) publishIssuer(invalidations, row);
}

/** The tenant's own issuer, which signs with a secret nobody has seen; made where there is none. */
export async function ensureOwnIssuer(
  db: Db,
  { sealer, clock, newId, random }: Pick<TokenIssuersDeps, "sealer" | "clock" | "newId"> & { random: RandomBytes },
  tenantId: string,
): Promise<{ row: TokenIssuerRow; isNew: boolean }> {
  const find = () => findTokenIssuer(db, tenantId, ownIssuer(tenantId), OWN_AUDIENCE);
  const existing = await find();
  if (existing !== undefined) return { row: existing, isNew: false };
  const id = newId();
  const made = await insertTokenIssuer(db, {
    tenantId,
    id,
    issuer: ownIssuer(tenantId),
    audience: OWN_AUDIENCE,
    algorithm: TokenAlgorithm.HS256,
    sealedSecret: sealer.seal(random(32), issuerPlace(tenantId, id)),
    createdAt: clock(),
  });
  if (made !== undefined) return { row: made, isNew: true };
  // Somebody was faster.
  const other = await find();
  if (other === undefined) throw new Error("the tenant's own issuer vanished while it was being made");
  return { row: other, isNew: false };
}

export function publishIssuer(invalidations: Pick<Invalidations, "publish">, row: TokenIssuerRow): void {
  const { tenantId, issuer, audience } = row;
  publishChange(invalidations, tenantId, { kind: "issuer", issuer, audience });
}

export function toTokenIssuer(row: TokenIssuerRow): TokenIssuer {
  return create(TokenIssuerSchema, {
    id: row.id,
    issuer: row.issuer,
    audience: row.audience,
    algorithm: row.algorithm as TokenAlgorithm,
    jwksUrl: row.jwksUrl ?? "",
    createTime: timestampFromDate(row.createdAt),
  });
}
