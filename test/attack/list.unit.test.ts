import { readFileSync } from "node:fs";
import { expect, test } from "vitest";

/**
 * The attacks that have been thought of, and the tests that make them: a file below test/, and how the titles begin.
 * Those that are about channels, templates and inbound webhooks come with these.
 */
const ATTACKS: Record<string, Record<string, readonly string[]>> = {
  "1 alg=none, HS256 signed with the RSA public key": {
    "auth/user-tokens.test.ts": [
      "without a signature: alg none in every spelling",
      "signed by HS256 with the issuer's RSA public key",
      "signed with a stronger hash than the issuer's",
    ],
  },
  "2 wrong or missing iss, aud, exp, typ": {
    "auth/user-tokens.test.ts": [
      "another issuer",
      "no issuer",
      "another audience",
      "no audience",
      "no expiry",
      "whose expiry overflows to infinity",
      "may have the type %s",
    ],
  },
  "3 edges of the skew": {
    "auth/user-tokens.test.ts": [
      "a token ends 30 s after its expiry, whether it was seen before or not",
      "a token is good 30 s before its %s and no earlier",
      "an expired forgery is invalid, not expired",
    ],
  },
  "4 the attacker's own jku, jwk, x5u; a path for a kid": {
    "auth/user-tokens.test.ts": ["that brings its own key: jwk, jku, x5u, x5c, or a path for a kid"],
  },
  "5 rotation and outage of key sets, a flood of unknown key ids": {
    "auth/jwks.unit.test.ts": [
      "a rotated key is found when a token names it, 30 s after the set was read",
      "a flood of made-up key ids asks the issuer's server once in 30 s",
      "while the issuer's server is away its keys serve for an hour, and no longer",
      "a server that never answered is asked every five seconds at most",
    ],
    "auth/user-tokens.test.ts": ["a rotated key is accepted and the old one refused once the set is read again"],
  },
  "6 API keys: hashed, found by prefix, compared in constant time, revoked at once, never logged": {
    "auth/api-keys.test.ts": [
      "the secret of a key is nowhere in the database",
      "every single character of a secret matters, and the answer does not tell how near it was",
      "a flood of unknown keys costs a few statements, and its repetition none",
      "a revoked key is refused by another server at once, streams included",
      "a revoked key is refused within the cache's time where NATS does not tell",
    ],
    "attack/repository.unit.test.ts": ["6: secrets are compared in constant time"],
    "rpc/telemetry.unit.test.ts": ["each call is one line in the log, without what it carries"],
  },
  "7 a token revoked while it streams": {
    "auth/user-tokens.test.ts": ["ends a user's tokens on every server at once, streams included, and nobody else's"],
    "stream/subscribe.test.ts": ["at once when its key is revoked", "with its token, after a warning"],
  },
  "8 every method with another tenant's id": {
    "tenancy/every-rpc.test.ts": [
      "every method that is served is tried",
      "another tenant's ids",
      "another tenant's page token",
      "the victim's stream has heard nothing of all that",
    ],
  },
  "9 row-level security, without a tenant": {
    "store/row-security.test.ts": [
      "neither role owns a table, passes policies or can become a role that does",
      "nobody without a tenant sees, adds, changes or empties anything",
      "a tenant sees its own rows only, the system all",
      "a tenant cannot put a row into another, nor move its own there",
    ],
  },
  "10 the tenant of one transaction in the next": {
    "store/row-security.test.ts": [
      "a tenant's name is gone from the connection when its transaction has ended, however it ended",
      "the same holds for what Drizzle runs",
      "a statement that comes after its transaction has failed does not join the next tenant's",
    ],
  },
  "11 wildcards in ids": {
    "tenancy/names.test.ts": [
      "an id with wildcards, dots or quotes hears its own events only",
      "an id finds its own inbox, profile and preferences only",
      "a token for an id with wildcards is for nobody else",
      "what no id may hold is refused before it reaches anything",
    ],
  },
  "12 idempotency keys of two tenants": {
    "tenancy/two-tenants.test.ts": [
      "the same idempotency key in two tenants is two keys",
      "the same deduplication and collapse keys in two tenants suppress nothing",
    ],
  },
  "26 oversize messages, lying lengths, compression bombs, deep nesting, hostile heads and forms": {
    "attack/content.test.ts": [
      "26: compression bombs in gRPC messages",
      "26: many small bombs in one stream",
      "26: a length prefix that lies",
      "26: messages nested without end",
      "26: far more items than are allowed, and very many fields before one that cannot be read",
      "26: heads with too many fields, too large ones, and HPACK bombs",
      "26: fields that must not be, and streams that are none",
      "26: compression bombs, in bodies and in GET",
      "26: far more items than are allowed, as JSON and compressed",
      "26: JSON that is too deep, too large, double, or no text",
      "26: an envelope that lies about its length",
    ],
    "attack/many-parts.test.ts": [
      "26: two million parts, %s",
      "26: a million values in JSON, within every field's bound",
    ],
    "attack/http-shapes.test.ts": [
      "26: paths that lead elsewhere",
      "26: paths that lead elsewhere, over HTTP/2",
      "26: requests that hide another one",
      "26: hosts, methods and upgrades that mean something else",
      "26: pages of other origins",
    ],
    "rpc/grpc.unit.test.ts": [
      "gets typed answers to what is too large, unreadable or unknown",
      "cannot make unknown fields cost memory, or nest without end",
    ],
    "rpc/http.unit.test.ts": [
      "a Host or authority that is none does not stop the server",
      "oversize bodies and compression bombs cost nothing",
    ],
  },
  "27 floods of frames": {
    "attack/floods.test.ts": [
      "27: rapid reset",
      "27: resets that the server is made to send",
      "27: a CONTINUATION flood",
      "27: a PING flood",
      "27: a SETTINGS flood",
      "27: a flood of empty DATA frames",
    ],
    "attack/tls.test.ts": ["27: rapid reset"],
  },
  "28 slow senders, readers that do not read, 10,000 streams on one token, connections": {
    "attack/stalls.test.ts": [
      "28: metrics and refusals that nobody takes, with pings, and without a credential",
      "28: a thousand silent connections from one address",
      "28: requests of which the second half never comes",
      "28: a message that trickles, for a stream",
      "28: large requests without a credential are not read",
      "28: answers that nobody takes",
      "28: streams that nobody reads",
      "28: streams on one token, ten thousand of them on the gRPC port",
      "28: slow heads (slowloris) and slow bodies (R-U-Dead-Yet)",
      "28: a pipeline of requests whose answers nobody reads",
    ],
    "attack/tls.test.ts": [
      "28: handshakes that are begun, trickle, or are none",
      "28: silence behind the handshake, and half a preface",
      "28: requests of which the second half never comes, and answers that nobody takes",
      "28: slow heads and slow bodies",
    ],
  },
  "29 ways around limits: burst, forged X-Forwarded-For, batch, Redis away, clock": {
    "attack/limits.test.ts": [
      "29: calls at once, over both ports, from forged addresses",
      "29: a batch, and many senders on two servers",
      "29: while Redis is away",
      "29: when the clock is set back",
    ],
    "limits/api-limits.unit.test.ts": ["never lets through more than the burst and what has refilled since"],
    "limits/notification-limits.test.ts": [
      "processes that race never go beyond a limit, nor stay below it",
      "a caller whose clock is behind does not open a window anew",
    ],
  },
  "32 what is left of a user who was deleted": {
    "attack/canary/deleted-user.test.ts": [
      "of a deleted user no contact data is left, and what is left of them is known",
    ],
  },
  "33 canaries in errors, logs, spans and stores": {
    "attack/canary/canary.test.ts": [
      "in good times",
      "while Postgres refuses every row with a constraint",
      "while %s is cut off in the middle",
      "in anything that the process says, at any level",
      "in spans",
      "in metrics",
      "in the files of JetStream",
      "in subjects and headers of NATS",
      "in what is queued",
      "in Redis",
      "in the logs of Postgres, NATS and Redis",
      "in what others are told",
      "Postgres keeps content and contacts, and of credentials only what cannot be used",
    ],
  },
  "34 audit entries, secrets in the repository, random and damaged calls of every method": {
    "services/admin-service.test.ts": [
      "every change is in the audit log with who made it, and what failed or changed nothing is not",
    ],
    "attack/repository.unit.test.ts": [
      "34: no file of the repository holds a secret",
      "34: the scan finds what it looks for",
    ],
    "attack/fuzz/fuzz.test.ts": ["every method is called"],
    "attack/fuzz/read-back.test.ts": [
      "a user",
      "a topic, a type",
      "the content of a notification, by its id and in the inbox alike",
      "preferences",
      "every list, page by page to its end",
    ],
  },
};

const OWN = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 26, 27, 28, 29, 32, 33, 34];

test("every attack of the list has its tests", () => {
  expect(Object.keys(ATTACKS).map((name) => Number.parseInt(name, 10))).toEqual(OWN);
  for (const tests of Object.values(ATTACKS)) expect(Object.values(tests).flat().length).toBeGreaterThan(0);
});

test.each(Object.entries(ATTACKS))("%s", (_, files) => {
  for (const [file, titles] of Object.entries(files)) {
    const source = readFileSync(new URL(`../${file}`, import.meta.url), "utf8");
    expect({ file, missing: missingIn(source, titles) }).toEqual({ file, missing: [] });
    expect({ file, skipped: skippedIn(source) }).toEqual({ file, skipped: [] });
  }
});

test("a test that is skipped, commented out or only spoken of is none", () => {
  expect(missingIn('  test("a thing", () => {\n  test.each([["another"]])("%s", ', ["a thing", "another"])).toEqual([]);
  expect(missingIn('// test("a thing", () => {\n/* test("another", */\n` * "third"`', ["a thing", "another"])).toEqual([
    "a thing",
    "another",
  ]);
  for (const skipped of [
    "test.skip(",
    "it.todo(",
    "describe.only(",
    "test.fails(",
    "test.concurrent.skip.each(",
    "xit(",
  ])
    expect(skippedIn(`${skipped}"a thing"`), skipped).toHaveLength(1);
  expect(skippedIn('describe.skipIf(true)("a thing"')).toHaveLength(1);
  expect(skippedIn('describe.skipIf(certificates === undefined)("TLS"')).toEqual([]);
  expect(skippedIn('if (siege === undefined) test.skip("openssl", () => undefined)')).toEqual([]);
  expect(skippedIn('test("a thing", (context) => context.skip())')).toHaveLength(1);
});

/** Titles that no test has; those of tables stand in a row of it. */
function missingIn(source: string, titles: readonly string[]): string[] {
  const code = source.replaceAll(/^\s*\/\/.*$/gm, "").replaceAll(/\/\*.*?\*\//gs, "");
  return titles.filter((title) => ![`"${title}`, `\`${title}`].some((quoted) => code.includes(quoted)));
}

/** What needs openssl for its certificates may be without them. */
const WITHOUT_OPENSSL = /describe\.skipIf\(certificates === undefined\)\("TLS"|test\.skip\("openssl"/g;

/** Where a file keeps a test from running. */
function skippedIn(source: string): string[] {
  const code = source.replaceAll(WITHOUT_OPENSSL, "");
  const skips =
    /\b(?:test|it|describe)(?:\.\w+)*\.(?:skip|todo|only|fails|skipIf|runIf)\b|\bx(?:it|test|describe)\(|\bskip\(/g;
  return [...code.matchAll(skips)].map(([skip]) => skip);
}

test("every test of an attack is on the list", () => {
  for (const file of ["floods", "stalls", "tls", "content", "many-parts", "http-shapes", "limits", "repository.unit"]) {
    const listed = new Set(Object.values(ATTACKS).flatMap((files) => files[`attack/${file}.test.ts`] ?? []));
    const source = readFileSync(new URL(`${file}.test.ts`, import.meta.url), "utf8");
    const titles = [...source.matchAll(/(?:test|describe)\(\s*"(\d+: [^"]*)"/g)].map(([, title]) => title);
    expect(titles.length).toBeGreaterThan(0);
    expect(titles.filter((title) => title === undefined || !listed.has(title))).toEqual([]);
  }
});
