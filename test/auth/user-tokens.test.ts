import { createHmac, createSecretKey, generateKeyPairSync, randomBytes } from "node:crypto";
import { durationFromMs, timestampDate } from "@bufbuild/protobuf/wkt";
import { base64url, decodeJwt, exportSPKI, generateKeyPair, type JWTPayload, SignJWT } from "jose";
import { describe, expect, test } from "vitest";
import { AdminService, TokenAlgorithm } from "#gen/posthorn/v1/admin_service_pb.ts";
import { ErrorReason } from "#gen/posthorn/v1/error_pb.ts";
import type { Principal } from "#src/rpc/call.ts";
import { invoke } from "../support/invoke.ts";
import { testServices } from "../support/services.ts";
import { until } from "../support/until.ts";
import { identityProvider, signingKey } from "./identity-provider.ts";
import { type NodeOptions, newTenant, testNode } from "./platform.ts";

const services = await testServices();
const { createTokenIssuer, deleteTokenIssuer, createUserToken, revokeUserTokens, updateTenant } = AdminService.method;
const reason = (name: keyof typeof ErrorReason) => ({ reason: ErrorReason[name] });
const INVALID = reason("CREDENTIAL_INVALID");
const EXPIRED = reason("CREDENTIAL_EXPIRED");
const seconds = (now: number) => Math.floor(now / 1000);

/** What a token claims, rightly or wrongly typed. */
type Claims = Record<string, unknown>;

/** A tenant that trusts an issuer with a shared secret, and that issuer. */
async function withIssuer(options: NodeOptions = {}) {
  const now = seconds(Date.now()) * 1000;
  const time = { now };
  const node = await testNode(services, { now: () => time.now, ...options });
  const { tenantId, call } = await newTenant(node);
  const issuer = `https://${tenantId}.example.com`;
  const secret = randomBytes(32);
  const key = { case: "secret" as const, value: secret };
  const request = { issuer, algorithm: TokenAlgorithm.HS256, key };
  const { tokenIssuer } = await invoke(node.admin, createTokenIssuer, request, call);
  const claims = { iss: issuer, aud: "posthorn", sub: "ann", iat: seconds(now), exp: seconds(now) + 600 };
  const sign = (changes: Claims = {}, header: object = {}, key: Uint8Array = secret) =>
    new SignJWT({ ...claims, ...changes } as JWTPayload).setProtectedHeader({ alg: "HS256", ...header }).sign(key);
  return { node, time, tenantId, call, issuer, secret, claims, sign, issuerId: tokenIssuer!.id };
}

describe("a token of a trusted issuer", () => {
  test("says which user calls", async () => {
    const { node, tenantId, claims, sign } = await withIssuer();
    expect(await node.who(await sign())).toMatchObject({
      kind: "user",
      tenantId,
      userId: "ann",
      issuedAt: new Date(claims.iat * 1000),
      expiresAt: new Date(claims.exp * 1000),
    });
  });

  test("is verified once and then recognised without a look-up", async () => {
    const { node, sign } = await withIssuer();
    const token = await sign();
    // The news of the issuer comes back over NATS and would have it read again.
    await node.broker.nats.flush();
    const principal = await node.who(token);
    const before = node.lookups();
    for (let call = 0; call < 100; call++) expect(await node.who(token)).toBe(principal);
    expect(node.lookups()).toBe(before);
  });

  test.each([
    ["RS256", TokenAlgorithm.RS256],
    ["ES256", TokenAlgorithm.ES256],
    ["EdDSA", TokenAlgorithm.EDDSA],
  ])("may be signed with %s and checked with a public key in PEM", async (alg, algorithm) => {
    const { node, call, claims } = await withIssuer();
    const { publicKey, privateKey } = await generateKeyPair(alg, { extractable: true });
    const issuer = `${claims.iss}/${alg}`;
    const key = { case: "publicKeyPem" as const, value: await exportSPKI(publicKey) };
    await invoke(node.admin, createTokenIssuer, { issuer, algorithm, key }, call);
    const token = new SignJWT({ ...claims, iss: issuer }).setProtectedHeader({ alg });
    expect(await node.who(await token.sign(privateKey))).toMatchObject({ userId: "ann" });
    const { privateKey: other } = await generateKeyPair(alg);
    const forged = new SignJWT({ ...claims, iss: issuer }).setProtectedHeader({ alg });
    await expect(node.who(await forged.sign(other))).rejects.toMatchObject(INVALID);
  });

  test.each(["JWT", "jwt", "at+jwt", "application/at+jwt"])("may have the type %s", async (typ) => {
    const { node, sign } = await withIssuer();
    expect(await node.who(await sign({}, { typ }))).toMatchObject({ userId: "ann" });
  });

  test("may be for several audiences, of which one is known here", async () => {
    const { node, sign } = await withIssuer();
    expect(await node.who(await sign({ aud: ["elsewhere", "posthorn"] }))).toMatchObject({ userId: "ann" });
  });

  test("belongs to nobody when its audiences are two tenants'", async () => {
    const { node, claims, secret, sign } = await withIssuer();
    const other = await newTenant(node);
    const key = { case: "secret" as const, value: secret };
    const request = { issuer: claims.iss, audience: "other", algorithm: TokenAlgorithm.HS256, key };
    await invoke(node.admin, createTokenIssuer, request, other.call);
    expect(await node.who(await sign({ aud: "other" }))).toMatchObject({ tenantId: other.tenantId });
    await expect(node.who(await sign({ aud: ["posthorn", "other"] }))).rejects.toMatchObject(INVALID);
  });
});

describe("a forged or wrong token is refused", () => {
  test.each<[string, Claims]>([
    ["another issuer", { iss: "https://evil.example.com" }],
    ["no issuer", { iss: undefined }],
    ["an issuer with a NUL", { iss: "a\0b" }],
    ["an endless issuer", { iss: "a".repeat(501) }],
    ["another audience", { aud: "elsewhere" }],
    ["no audience", { aud: undefined }],
    ["no audience in a list", { aud: [] }],
    ["too many audiences", { aud: Array.from({ length: 9 }, (_, index) => `a${index}`).concat("posthorn") }],
    ["no subject", { sub: undefined }],
    ["an empty subject", { sub: "" }],
    ["a subject with a space", { sub: "an n" }],
    ["a subject with a line break", { sub: "ann\n" }],
    ["a subject in other letters", { sub: "änn" }],
    ["a subject of 129 characters", { sub: "a".repeat(129) }],
    ["a subject that is a number", { sub: 7 }],
    ["no expiry", { exp: undefined }],
    ["an expiry that is text", { exp: "never" }],
    ["an expiry beyond what a clock can show", { exp: 9e12 }],
    ["a time of issue that is text", { iat: "now" }],
  ])("with %s", async (_what, changes) => {
    const { node, sign } = await withIssuer();
    await node.who(await sign());
    await expect(node.who(await sign(changes))).rejects.toMatchObject(INVALID);
  });

  test("whose expiry overflows to infinity", async () => {
    const { node, claims, secret } = await withIssuer();
    const payload = JSON.stringify({ ...claims, exp: 0 }).replace('"exp":0', '"exp":1e999');
    await expect(node.who(hs256({ alg: "HS256" }, payload, secret))).rejects.toMatchObject(INVALID);
  });

  test.each<[string, object]>([
    ["logout+jwt", { typ: "logout+jwt" }],
    ["dpop+jwt", { typ: "dpop+jwt" }],
    ["a type that is a number", { typ: 1 }],
    ["a critical header nobody knows", { crit: ["x"], x: 1 }],
    ["a kid that is an object", { kid: {} }],
  ])("with the header %s", async (_what, header) => {
    const { node, claims, secret } = await withIssuer();
    const token = hs256({ alg: "HS256", ...header }, JSON.stringify(claims), secret);
    await expect(node.who(token)).rejects.toMatchObject(INVALID);
  });

  test("without a signature: alg none in every spelling", async () => {
    const { node, claims } = await withIssuer();
    for (const alg of ["none", "None", "NONE", "nOnE", ""]) {
      const head = base64url.encode(JSON.stringify({ alg, typ: "JWT" }));
      const body = base64url.encode(JSON.stringify(claims));
      for (const signature of ["", "AA"]) {
        await expect(node.who(`${head}.${body}.${signature}`)).rejects.toMatchObject(INVALID);
      }
    }
  });

  test("signed by HS256 with the issuer's RSA public key", async () => {
    const { node, call, claims } = await withIssuer();
    const { publicKey } = await generateKeyPair("RS256", { extractable: true });
    const pem = await exportSPKI(publicKey);
    const issuer = `${claims.iss}/rsa`;
    const request = { issuer, algorithm: TokenAlgorithm.RS256, key: { case: "publicKeyPem" as const, value: pem } };
    await invoke(node.admin, createTokenIssuer, request, call);
    for (const secret of [pem, pem.trim(), `${pem}\n`]) {
      const token = hs256({ alg: "HS256" }, JSON.stringify({ ...claims, iss: issuer }), Buffer.from(secret));
      await expect(node.who(token)).rejects.toMatchObject(INVALID);
    }
  });

  test("signed with a stronger hash than the issuer's", async () => {
    const { node, claims } = await withIssuer();
    const secret = randomBytes(64);
    const token = await new SignJWT(claims).setProtectedHeader({ alg: "HS512" }).sign(secret);
    await expect(node.who(token)).rejects.toMatchObject(INVALID);
  });

  test("that brings its own key: jwk, jku, x5u, x5c, or a path for a kid", async () => {
    const attacker = await signingKey("attacker");
    const theirs = await identityProvider(attacker);
    const key = await signingKey("k");
    const provider = await identityProvider(key);
    const { node, call, claims } = await withIssuer();
    const issuer = `${claims.iss}/jwks`;
    const request = { issuer, algorithm: TokenAlgorithm.ES256, key: { case: "jwksUrl" as const, value: provider.url } };
    await invoke(node.admin, createTokenIssuer, request, call);
    const mine = { ...claims, iss: issuer };
    expect(await node.who(await provider.token(key, mine))).toMatchObject({ userId: "ann" });
    const { kid: _, ...jwk } = attacker.jwk;
    for (const header of [
      { jwk },
      { jku: theirs.url },
      { x5u: theirs.url },
      { kid: "k" },
      { kid: "k", jku: theirs.url, jwk },
      { kid: "../../../../dev/null" },
      { kid: theirs.url },
      { kid: "' or 1=1 --" },
    ]) {
      await expect(node.who(await theirs.token(attacker, mine, header))).rejects.toMatchObject(INVALID);
    }
    expect(theirs.requests).toBe(0);
    expect(provider.requests).toBe(1);
  });

  test("when changed anywhere, or not a token at all", async () => {
    const { node, sign } = await withIssuer();
    const token = await sign();
    const [head = "", body = "", signature = ""] = token.split(".");
    const admin = base64url.encode(JSON.stringify({ ...decodeJwt(token), sub: "root" }));
    for (const forged of [
      `${head}.${admin}.${signature}`,
      `${head}.${body}.${signature.slice(0, -2)}`,
      `${head}.${body}`,
      `${head}.${body}.`,
      `${head}.${body}.${signature}.`,
      `.${body}.${signature}`,
      "..",
      "eyJ.eyJ.eyJ",
      `${head}.${base64url.encode("null")}.${signature}`,
      `${head}.${base64url.encode("[]")}.${signature}`,
    ]) {
      await expect(node.who(forged)).rejects.toMatchObject(INVALID);
    }
  });

  test("when it is longer than 8,192 characters, unread", async () => {
    const { node, sign } = await withIssuer();
    expect(await node.who(await sign({ groups: "x".repeat(5000) }))).toMatchObject({ userId: "ann" });
    await expect(node.who(await sign({ groups: "x".repeat(8000) }))).rejects.toMatchObject(INVALID);
  });

  test("with the same words, however it is wrong and whichever tenants exist", async () => {
    const { node, sign } = await withIssuer();
    const tokens = [await sign({ iss: "https://nobody.example.com" }), await sign({}, {}, randomBytes(32)), "junk"];
    const answers = await Promise.all(tokens.map((token) => node.who(token).catch((error) => error)));
    const shown = answers.map(({ code, reason, message, metadata, fields }) => ({
      code,
      reason,
      message,
      metadata,
      fields,
    }));
    expect(shown[1]).toEqual(shown[0]);
    expect(shown[2]).toEqual(shown[0]);
    // What is logged with it does not hold the token or its claims.
    for (const [index, { cause }] of answers.entries()) {
      expect(String(cause)).not.toContain(tokens[index]);
      expect(JSON.stringify(cause)).not.toContain("ann");
    }
  });
});

describe("with a skew of 30 s", () => {
  test("a token ends 30 s after its expiry, whether it was seen before or not", async () => {
    const { node, time, claims, sign } = await withIssuer();
    const token = await sign();
    time.now = (claims.exp + 29) * 1000;
    await node.who(token);
    time.now = (claims.exp + 30) * 1000;
    await expect(node.who(token)).rejects.toMatchObject(EXPIRED);
    await expect(node.who(await sign({ jti: "another" }))).rejects.toMatchObject(EXPIRED);
  });

  test.each(["nbf", "iat"])("a token is good 30 s before its %s and no earlier", async (claim) => {
    const { node, claims, sign } = await withIssuer();
    expect(await node.who(await sign({ [claim]: claims.iat + 30 }))).toMatchObject({ userId: "ann" });
    await expect(node.who(await sign({ [claim]: claims.iat + 31 }))).rejects.toMatchObject(INVALID);
  });

  test("an expired forgery is invalid, not expired", async () => {
    const { node, sign } = await withIssuer();
    await expect(node.who(await sign({ exp: 1 }, {}, randomBytes(32)))).rejects.toMatchObject(INVALID);
    await expect(node.who(await sign({ exp: 1 }))).rejects.toMatchObject(EXPIRED);
  });
});

describe("keys by URL", () => {
  test("a rotated key is accepted and the old one refused once the set is read again", async () => {
    const time = { now: 0 };
    const [old, next] = [await signingKey("old", "RS256"), await signingKey("next", "RS256")];
    const provider = await identityProvider(old);
    const { node, call, claims } = await withIssuer({ ticks: () => time.now });
    const issuer = `${claims.iss}/jwks`;
    const request = { issuer, algorithm: TokenAlgorithm.RS256, key: { case: "jwksUrl" as const, value: provider.url } };
    await invoke(node.admin, createTokenIssuer, request, call);
    const token = (key: typeof old, jti: string) => provider.token(key, { ...claims, iss: issuer, jti });
    const early = await token(old, "1");
    await node.who(early);
    provider.keys = [next];
    await expect(node.who(await token(next, "2"))).rejects.toMatchObject(INVALID);
    time.now = 30_000;
    await node.who(await token(next, "2"));
    await expect(node.who(await token(old, "3"))).rejects.toMatchObject(INVALID);
    // A token that was verified with the withdrawn key ends as well, five minutes after it was.
    await node.who(early);
    time.now = 5 * 60_000;
    await expect(node.who(early)).rejects.toMatchObject(INVALID);
  });

  test("while the keys cannot be had, the answer is to try again, not that the token is bad", async () => {
    const key = await signingKey("k");
    const provider = await identityProvider(key);
    provider.respond = (response) => void response.writeHead(503).end();
    const { node, call, claims } = await withIssuer();
    const issuer = `${claims.iss}/jwks`;
    const request = { issuer, algorithm: TokenAlgorithm.ES256, key: { case: "jwksUrl" as const, value: provider.url } };
    await invoke(node.admin, createTokenIssuer, request, call);
    const token = await provider.token(key, { ...claims, iss: issuer });
    await expect(node.who(token)).rejects.toMatchObject(reason("DEPENDENCY_UNAVAILABLE"));
  });

  test("a token with another algorithm than the issuer's makes nobody fetch keys", async () => {
    const key = await signingKey("k");
    const provider = await identityProvider(key);
    const { node, call, claims } = await withIssuer();
    const issuer = `${claims.iss}/jwks`;
    const request = { issuer, algorithm: TokenAlgorithm.RS256, key: { case: "jwksUrl" as const, value: provider.url } };
    await invoke(node.admin, createTokenIssuer, request, call);
    await expect(node.who(await provider.token(key, { ...claims, iss: issuer }))).rejects.toMatchObject(INVALID);
    expect(provider.requests).toBe(0);
  });
});

describe("the tenant's own tokens", () => {
  test("say who calls, for an hour or as long as asked", async () => {
    const { node, time, tenantId, call } = await withIssuer();
    const hour = await invoke(node.admin, createUserToken, { userId: "bob" }, call);
    const minute = await invoke(node.admin, createUserToken, { userId: "bob", ttl: durationFromMs(60_000) }, call);
    expect(await node.who(hour.token)).toMatchObject({ kind: "user", tenantId, userId: "bob" });
    expect(timestampDate(hour.expireTime!).getTime() - time.now).toBe(3_600_000);
    expect(timestampDate(minute.expireTime!).getTime() - time.now).toBe(60_000);
    expect((await node.who(minute.token)) as object).toMatchObject({ expiresAt: timestampDate(minute.expireTime!) });
    time.now += 90_000;
    await expect(node.who(minute.token)).rejects.toMatchObject(EXPIRED);
  });

  test("are not another tenant's", async () => {
    const { node, call, tenantId } = await withIssuer();
    const other = await newTenant(node);
    const { token } = await invoke(node.admin, createUserToken, { userId: "bob" }, call);
    const claims = decodeJwt(token);
    const moved = await new SignJWT({ ...claims, iss: `posthorn:${other.tenantId}` })
      .setProtectedHeader({ alg: "HS256" })
      .sign(createSecretKey(randomBytes(32)));
    await expect(node.who(moved)).rejects.toMatchObject(INVALID);
    await expect(node.who(token, other.tenantId)).rejects.toMatchObject(reason("NOT_FOUND"));
    expect(await node.who(token, tenantId)).toMatchObject({ tenantId });
  });

  test("may be signed with the platform's secret where one is configured, which opens no other issuer", async () => {
    const jwtSecret = "the platform's secret of this test, 123";
    const { node, tenantId, claims, call } = await withIssuer({ config: { jwtSecret } });
    const strict = await testNode(services, { now: () => claims.iat * 1000 });
    const sign = (iss: string) => hs256({ alg: "HS256" }, JSON.stringify({ ...claims, iss }), Buffer.from(jwtSecret));
    expect(await node.who(sign(`posthorn:${tenantId}`))).toMatchObject({ tenantId, userId: "ann" });
    const own = await invoke(node.admin, createUserToken, { userId: "bob" }, call);
    expect(await node.who(own.token)).toMatchObject({ userId: "bob" });
    await expect(node.who(sign(claims.iss))).rejects.toMatchObject(INVALID);
    await expect(strict.who(sign(`posthorn:${tenantId}`))).rejects.toMatchObject(INVALID);
  });
});

describe("revocation", () => {
  test("ends a user's tokens on every server at once, streams included, and nobody else's", async () => {
    const { node: here, call, sign, claims, time } = await withIssuer();
    const there = await testNode(services, { now: () => time.now });
    const [ann, bob] = [await sign(), await sign({ sub: "bob" })];
    const principal = await there.who(ann);
    await there.who(bob);
    expect(await there.auth.stillValid(principal)).toBe(true);
    time.now += 5_000;
    await invoke(here.admin, revokeUserTokens, { userId: "ann" }, call);
    await expect(here.who(ann)).rejects.toMatchObject(INVALID);
    await expect.poll(() => there.auth.stillValid(principal), { timeout: 1000, interval: 10 }).toBe(false);
    await expect(there.who(ann)).rejects.toMatchObject(INVALID);
    await expect(there.who(await sign({ jti: "same age" }))).rejects.toMatchObject(INVALID);
    await expect(there.who(await sign({ iat: undefined }))).rejects.toMatchObject(INVALID);
    await there.who(bob);
    // What is issued afterwards is good again.
    expect(await there.who(await sign({ iat: claims.iat + 6 }))).toMatchObject({ userId: "ann" });
  });

  test("is noticed within the cache's time where NATS does not tell", async () => {
    const ticks = { now: 0 };
    const { node, call, sign, time } = await withIssuer();
    const namespace = `${services.namespace}deaf2`;
    const deaf = await testNode({ ...services, namespace }, { now: () => time.now, ticks: () => ticks.now });
    const token = await sign();
    await deaf.who(token);
    await invoke(node.admin, revokeUserTokens, { userId: "ann" }, call);
    ticks.now = 1000;
    await expect(deaf.who(token)).rejects.toMatchObject(INVALID);
  });

  test("leaves a token good that is signed right after it, in the same millisecond", async () => {
    const { node, call } = await withIssuer();
    const before = await invoke(node.admin, createUserToken, { userId: "bob" }, call);
    await invoke(node.admin, revokeUserTokens, { userId: "bob" }, call);
    const after = await invoke(node.admin, createUserToken, { userId: "bob" }, call);
    await expect(node.who(before.token)).rejects.toMatchObject(INVALID);
    expect(await node.who(after.token)).toMatchObject({ userId: "bob" });
  });

  test("asks Postgres about two thousand open streams in a few statements", async () => {
    const ticks = { now: 0 };
    const { node, sign } = await withIssuer({ ticks: () => ticks.now });
    const users = Array.from({ length: 2_000 }, (_, index) => `user-${index}`);
    const principals = await Promise.all(users.map(async (sub) => node.who(await sign({ sub }))));
    ticks.now = 1000;
    const before = node.lookups();
    expect(await Promise.all(principals.map((each) => node.auth.stillValid(each)))).not.toContain(false);
    // Four of 500 and the issuer's; besides, what was revoked lately is asked for twice a second.
    expect(node.lookups() - before).toBeLessThanOrEqual(8);
  });

  test("that happens where no news comes from is found without asking about every open stream", async () => {
    const ticks = () => performance.now();
    const { node, sign } = await withIssuer({ ticks });
    const users = Array.from({ length: 50 }, (_, index) => `open-${index}`);
    const principals = await Promise.all(users.map(async (sub) => node.who(await sign({ sub }))));
    const start = performance.now();
    const [first] = principals as [Extract<Principal, { kind: "user" }>];
    // Long enough that every copy is older than may be believed by itself.
    await until(
      async () => performance.now() - start,
      (passed) => passed > 1500,
    );
    // The first brings the issuer's copy up to date.
    expect(await node.auth.stillValid(first)).toBe(true);
    const isAsked = principals.map((each) => node.auth.stillValid(each) instanceof Promise);
    expect(isAsked).not.toContain(true);
    await node.store.system(
      (tx) => tx`insert into token_revocations (tenant_id, user_id, not_before)
        values (${first.tenantId}, ${first.userId}, ${new Date(Date.now() + 1000)})`,
    );
    await until(
      async () => node.auth.stillValid(first),
      (good) => !good,
    );
    expect(await node.auth.stillValid(principals[1]!)).toBe(true);
  });

  test("of trust ends an issuer's tokens; trusted again with another secret, the old ones stay refused", async () => {
    const { node, call, sign, issuer, issuerId, tenantId } = await withIssuer();
    const token = await sign();
    const principal = await node.who(token);
    await invoke(node.admin, deleteTokenIssuer, { id: issuerId }, call);
    await expect(node.who(token)).rejects.toMatchObject(INVALID);
    expect(await node.auth.stillValid(principal)).toBe(false);
    const key = { case: "secret" as const, value: randomBytes(32) };
    await invoke(node.admin, createTokenIssuer, { issuer, algorithm: TokenAlgorithm.HS256, key }, call);
    await expect(node.who(token)).rejects.toMatchObject(INVALID);
    expect(await node.auth.stillValid(principal)).toBe(false);
    expect(await node.who(await sign({}, {}, key.value))).toMatchObject({ tenantId });
  });

  test("comes with the tenant's suspension, for its users too", async () => {
    const { node, sign, tenantId, call } = await withIssuer();
    const token = await sign();
    const principal = await node.who(token);
    await invoke(node.admin, updateTenant, { id: tenantId, state: 2 }, call);
    await expect(node.who(token)).rejects.toMatchObject(reason("TENANT_SUSPENDED"));
    expect(await node.auth.stillValid(principal)).toBe(false);
  });

  test("is remembered by a copy of the principal, and nothing else passes for one", async () => {
    const { node, sign } = await withIssuer();
    const principal = await node.who(await sign());
    expect(await node.auth.stillValid({ ...principal })).toBe(true);
    expect(await node.auth.stillValid(JSON.parse(JSON.stringify(principal)))).toBe(false);
  });
});

test("a public key of less than 2,048 bits is not trusted", async () => {
  const { node, call, issuer } = await withIssuer();
  const { publicKey } = generateKeyPairSync("rsa", { modulusLength: 1024 });
  const value = publicKey.export({ type: "spki", format: "pem" }).toString();
  const request = {
    issuer: `${issuer}/x`,
    algorithm: TokenAlgorithm.RS256,
    key: { case: "publicKeyPem" as const, value },
  };
  await expect(invoke(node.admin, createTokenIssuer, request, call)).rejects.toMatchObject(reason("INVALID_REQUEST"));
});

/** A token as an attacker writes it: with any header, signed by HMAC-SHA-256. */
function hs256(header: object, payload: string, secret: Uint8Array): string {
  const signed = `${base64url.encode(JSON.stringify(header))}.${base64url.encode(payload)}`;
  return `${signed}.${createHmac("sha256", secret).update(signed).digest("base64url")}`;
}
