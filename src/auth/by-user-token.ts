import { LRUCache } from "lru-cache";
import { ErrorReason } from "#gen/posthorn/v1/error_pb.ts";
import type { Clock } from "#src/clock.ts";
import { Fault } from "#src/errors.ts";
import type { Principal } from "#src/rpc/call.ts";
import { type CredentialCache, issuerName, userName } from "./credential-cache.ts";
import type { Issuer } from "./issuer.ts";
import type { RevocationRow } from "./lookups.ts";
import { credentialInvalid, isActive, refuseSuspended } from "./refusals.ts";
import { tokenNames, verifyUserToken } from "./user-token.ts";

/** A principal that knows who vouched for it, so that a stream can be asked about later; a copy knows it too. */
const VOUCHER = Symbol("voucher");
type Voucher = { issuerName: string; issuerId: string };
type UserPrincipal = Extract<Principal, { kind: "user" }> & { readonly [VOUCHER]?: Voucher };
type VouchedPrincipal = UserPrincipal & { readonly [VOUCHER]: Voucher };

export type ByUserToken = {
  /** `hash` stands for the token in memory. */
  authenticate(token: string, hash: string): Promise<Principal>;
  stillValid(principal: UserPrincipal): boolean | Promise<boolean>;
};

export type ByUserTokenDeps = {
  cache: Pick<CredentialCache<never, Issuer>, "issuers" | "revocations">;
  clock: Clock;
  ticks: () => number;
  skewSeconds: number;
};

/** Verified tokens remembered; each takes less than 1 KiB. */
const MAX_VERIFIED = 20_000;
/** A remembered token is verified anew after this long, so that a key that its issuer withdrew stops working. */
const VERIFIED_MS = 5 * 60_000;

export function byUserToken({ cache, clock, ticks, skewSeconds }: ByUserTokenDeps): ByUserToken {
  const verified = new LRUCache<string, { principal: VouchedPrincipal; at: number }>({ max: MAX_VERIFIED });

  const recall = (hash: string, now: Date): VouchedPrincipal | undefined => {
    const known = verified.get(hash);
    if (known === undefined || ticks() - known.at >= VERIFIED_MS) return undefined;
    if (known.principal.expiresAt.getTime() + skewSeconds * 1000 <= now.getTime()) {
      throw new Fault(ErrorReason.CREDENTIAL_EXPIRED, { message: "The user token has expired." });
    }
    return known.principal;
  };

  const verify = async (token: string, hash: string, issuer: Issuer, now: Date): Promise<VouchedPrincipal> => {
    const { userId, issuedAt, expiresAt } = await verifyUserToken(token, issuer, now, skewSeconds);
    const voucher = { issuerName: issuerName(issuer.issuer, issuer.audience), issuerId: issuer.id };
    const { tenantId } = issuer;
    const principal = { kind: "user" as const, tenantId, userId, issuedAt, expiresAt, [VOUCHER]: voucher };
    verified.set(hash, { principal, at: ticks() });
    return principal;
  };

  const issuerOf = async (token: string): Promise<Issuer | undefined> => {
    const { issuer, audiences } = tokenNames(token);
    const found = await Promise.all(audiences.map((audience) => cache.issuers.get(issuerName(issuer, audience))));
    const trusted = found.filter((each) => each !== undefined);
    if (trusted.length > 1) throw credentialInvalid("for several audiences that are known here");
    return trusted[0];
  };

  const isRevoked = async (principal: UserPrincipal): Promise<boolean> => {
    const found = cache.revocations.get(userName(principal.tenantId, principal.userId));
    return isBefore(principal, found instanceof Promise ? await found : found);
  };

  return {
    async authenticate(token, hash) {
      const now = clock();
      const known = recall(hash, now);
      const issuer = known === undefined ? await issuerOf(token) : await cache.issuers.get(known[VOUCHER].issuerName);
      if (issuer === undefined) throw credentialInvalid("unknown issuer");
      // An issuer that was deleted and registered anew may have another key.
      const isKnown = known !== undefined && known[VOUCHER].issuerId === issuer.id;
      const principal = isKnown ? known : await verify(token, hash, issuer, now);
      if (await isRevoked(principal)) throw credentialInvalid("revoked user token");
      refuseSuspended(issuer.tenantState);
      return principal;
    },
    stillValid(principal) {
      const voucher = principal[VOUCHER];
      if (voucher === undefined) return false;
      const isGood = (issuer: Issuer | undefined, revocation: RevocationRow | undefined) =>
        issuer?.id === voucher.issuerId && isActive(issuer.tenantState) && !isBefore(principal, revocation);
      const issuer = cache.issuers.get(voucher.issuerName);
      const revocation = cache.revocations.get(userName(principal.tenantId, principal.userId));
      return issuer instanceof Promise || revocation instanceof Promise
        ? Promise.all([issuer, revocation]).then((both) => isGood(...both))
        : isGood(issuer, revocation);
    },
  };
}

/** A token that does not say when it was issued counts as issued before every revocation. */
function isBefore({ issuedAt }: UserPrincipal, revocation: RevocationRow | undefined): boolean {
  return revocation !== undefined && (issuedAt === undefined || issuedAt <= revocation.notBefore);
}
