import type { KeyObject } from "node:crypto";
import {
  decodeJwt,
  decodeProtectedHeader,
  errors,
  type JWTPayload,
  jwtVerify,
  type ProtectedHeaderParameters,
  SignJWT,
} from "jose";
import { ErrorReason } from "#gen/posthorn/v1/error_pb.ts";
import { Fault } from "#src/errors.ts";
import { type Issuer, OWN_AUDIENCE, ownIssuer } from "./issuer.ts";
import { credentialInvalid } from "./refusals.ts";

/** Longer tokens are refused unread. Identity providers that list hundreds of groups reach 4 KiB. */
export const MAX_TOKEN_LENGTH = 8192;
/** The user ids of the contract. */
const USER_ID = /^[\x21-\x7e]{1,128}$/;
/** A token for several audiences may name this many. */
const MAX_AUDIENCES = 8;
/** The last instant a Date can hold, in seconds. */
const MAX_NUMERIC_DATE = 8_640_000_000_000;

export type TokenNames = { issuer: string; audiences: string[] };

/** What a token says about itself: who made it and for whom. Nothing of it is believed before `verifyUserToken`. */
export function tokenNames(token: string): TokenNames {
  const { iss, aud } = unverified(token);
  const audiences = typeof aud === "string" ? [aud] : Array.isArray(aud) ? aud : [];
  if (typeof iss !== "string" || !isName(iss, 500)) throw invalid("iss");
  if (audiences.length === 0 || audiences.length > MAX_AUDIENCES) throw invalid("aud");
  if (!audiences.every((each) => typeof each === "string" && isName(each, 200))) throw invalid("aud");
  return { issuer: iss, audiences: [...new Set(audiences)] };
}

function unverified(token: string): JWTPayload {
  try {
    return decodeJwt(token);
  } catch (error) {
    throw invalid(codeOf(error));
  }
}

function unverifiedHeader(token: string): ProtectedHeaderParameters {
  try {
    return decodeProtectedHeader(token);
  } catch (error) {
    throw invalid(codeOf(error));
  }
}

/** Postgres cannot hold U+0000; a look-up with it would fail for everyone in the same batch. */
function isName(text: string, maxLength: number): boolean {
  return text.length > 0 && text.length <= maxLength && !text.includes("\0") && text.isWellFormed();
}

export type VerifiedToken = {
  userId: string;
  /** Absent in tokens without `iat`. */
  issuedAt: Date | undefined;
  expiresAt: Date;
};

/**
 * Believes a token when the issuer's key signed it with the issuer's algorithm, it is for the issuer's audience, names a
 * user, and is neither from the future nor expired, give or take `skewSeconds` (RFC 7519, RFC 8725). Keys that the token
 * itself offers (`jwk`, `jku`, `x5c`, `x5u`) are never looked at.
 *
 * @throws CREDENTIAL_EXPIRED for a token that was good once, CREDENTIAL_INVALID for every other one, and
 *   DEPENDENCY_UNAVAILABLE while the issuer's keys cannot be had.
 */
export async function verifyUserToken(
  token: string,
  issuer: Issuer,
  now: Date,
  skewSeconds: number,
): Promise<VerifiedToken> {
  const header = unverifiedHeader(token);
  // An untyped token or an access token (RFC 9068); not an ID token's logout sibling, nor any other kind of JWT.
  const { typ, alg, kid } = header;
  if (typ !== undefined && !(typeof typ === "string" && /^(application\/)?(at\+)?jwt$/i.test(typ)))
    throw invalid("typ");
  if (alg === undefined || !issuer.algorithms.includes(alg)) throw invalid("alg");
  if (kid !== undefined && typeof kid !== "string") throw invalid("kid");
  const payload = await verified(token, issuer, kid === undefined ? { alg } : { alg, kid }, now, skewSeconds);
  const { sub, iat, exp } = payload;
  if (typeof sub !== "string" || !USER_ID.test(sub)) throw invalid("sub");
  if (exp === undefined || exp > MAX_NUMERIC_DATE) throw invalid("exp");
  if (iat !== undefined && (iat < 0 || iat > now.getTime() / 1000 + skewSeconds)) throw invalid("iat");
  return {
    userId: sub,
    issuedAt: iat === undefined ? undefined : new Date(Math.round(iat * 1000)),
    expiresAt: new Date(exp * 1000),
  };
}

async function verified(
  token: string,
  issuer: Issuer,
  header: { alg: string; kid?: string },
  now: Date,
  skewSeconds: number,
): Promise<JWTPayload> {
  let refusal: unknown;
  for (const key of issuer.keysFor(header)) {
    try {
      const { payload } = await jwtVerify(token, await key, {
        algorithms: [...issuer.algorithms],
        issuer: issuer.issuer,
        audience: issuer.audience,
        requiredClaims: ["iss", "aud", "sub", "exp"],
        clockTolerance: skewSeconds,
        currentDate: now,
      });
      return payload;
    } catch (error) {
      if (error instanceof errors.JWTExpired) {
        throw new Fault(ErrorReason.CREDENTIAL_EXPIRED, { message: "The user token has expired." });
      }
      // Not the token's fault: a key that cannot be opened or fetched.
      if (!(error instanceof errors.JOSEError) && !(error instanceof TypeError)) throw error;
      refusal = error;
      if (!(error instanceof errors.JWSSignatureVerificationFailed)) break;
    }
  }
  throw invalid(codeOf(refusal));
}

function invalid(what: string): Fault {
  return credentialInvalid(`user token, ${what}`);
}

/** Only the code: messages and properties of jose's errors can hold the claims. */
function codeOf(error: unknown): string {
  return error instanceof errors.JOSEError ? error.code : "malformed";
}

export type OwnToken = { tenantId: string; userId: string; issuedAt: Date; expiresAt: Date; id: string };

/** Signs a token as the tenant's own issuer. `iat` keeps its milliseconds, so that revocation can tell them apart. */
export function signUserToken(token: OwnToken, secret: KeyObject): Promise<string> {
  return new SignJWT()
    .setProtectedHeader({ alg: "HS256", typ: "JWT" })
    .setIssuer(ownIssuer(token.tenantId))
    .setAudience(OWN_AUDIENCE)
    .setSubject(token.userId)
    .setJti(token.id)
    .setIssuedAt(token.issuedAt.getTime() / 1000)
    .setExpirationTime(Math.ceil(token.expiresAt.getTime() / 1000))
    .sign(secret);
}
