import type { ServerResponse } from "node:http";
import { errors } from "jose";
import { expect, test } from "vitest";
import { ErrorReason } from "#gen/posthorn/v1/error_pb.ts";
import { keySets } from "#src/auth/jwks.ts";
import { keySetFetcher } from "#src/auth/jwks-fetch.ts";
import { createLogger } from "#src/telemetry/logger.ts";
import { identityProvider, signingKey } from "./identity-provider.ts";

const log = createLogger({ serviceName: "test", logLevel: "silent", logFormat: "json" });
const fetchKeySet = keySetFetcher({ loopback: true });
const MINUTE = 60_000;

async function issuer() {
  const [old, next] = [await signingKey("old"), await signingKey("next")];
  const provider = await identityProvider(old);
  const time = { now: 0 };
  const sets = keySets({ fetchKeySet, ticks: () => time.now, log });
  const keyFor = (kid?: string, alg = "ES256") => sets.keyFor(provider.url, kid === undefined ? { alg } : { alg, kid });
  return { provider, old, next, time, keyFor };
}

test("a set is read once for many tokens", async () => {
  const { provider, keyFor } = await issuer();
  await Promise.all(Array.from({ length: 50 }, () => keyFor("old")));
  await keyFor("old");
  expect(provider.requests).toBe(1);
});

test("a rotated key is found when a token names it, 30 s after the set was read", async () => {
  const { provider, next, time, keyFor } = await issuer();
  await keyFor("old");
  provider.keys = [next];
  time.now = 29_999;
  await expect(keyFor("next")).rejects.toBeInstanceOf(errors.JWKSNoMatchingKey);
  expect(provider.requests).toBe(1);
  time.now = 30_000;
  await keyFor("next");
  expect(provider.requests).toBe(2);
  await expect(keyFor("old")).rejects.toBeInstanceOf(errors.JWKSNoMatchingKey);
});

test("a flood of made-up key ids asks the issuer's server once in 30 s", async () => {
  const { provider, time, keyFor } = await issuer();
  await keyFor("old");
  time.now = 31_000;
  const flood = Array.from({ length: 500 }, (_, index) => keyFor(`../../etc/passwd${index}`));
  expect((await Promise.allSettled(flood)).every(({ status }) => status === "rejected")).toBe(true);
  expect(provider.requests).toBe(2);
  await keyFor("old");
});

test("a key that was withdrawn stops serving when the set is read again, without anybody waiting for that", async () => {
  const { provider, next, time, keyFor } = await issuer();
  await keyFor("old");
  provider.keys = [next];
  time.now = 5 * MINUTE;
  await keyFor("old");
  await expect.poll(() => keyFor("old").then(String, (error) => error.code)).toBe("ERR_JWKS_NO_MATCHING_KEY");
  expect(provider.requests).toBe(2);
});

test("while the issuer's server is away its keys serve for an hour, and no longer", async () => {
  const { provider, time, keyFor } = await issuer();
  await keyFor("old");
  provider.respond = (response) => response.writeHead(503).end();
  for (time.now = 5 * MINUTE; time.now < 60 * MINUTE; time.now += MINUTE) await keyFor("old");
  time.now = 60 * MINUTE;
  await expect(keyFor("old")).rejects.toMatchObject({ reason: ErrorReason.DEPENDENCY_UNAVAILABLE });
  provider.respond = undefined;
  time.now += 5_000;
  await keyFor("old");
});

test("a server that never answered is asked every five seconds at most", async () => {
  const { provider, time, keyFor } = await issuer();
  provider.respond = (response) => response.writeHead(500).end();
  for (let tries = 0; tries < 20; tries++) {
    await expect(keyFor("old")).rejects.toMatchObject({ reason: ErrorReason.DEPENDENCY_UNAVAILABLE });
  }
  expect(provider.requests).toBe(1);
  time.now = 5_000;
  provider.respond = undefined;
  await keyFor("old");
});

test("without a kid the only key of the algorithm serves; of two, neither is guessed", async () => {
  const { provider, next, time, keyFor } = await issuer();
  await keyFor();
  provider.keys = [...provider.keys, next];
  time.now = 31_000;
  await keyFor("next");
  await expect(keyFor()).rejects.toBeInstanceOf(errors.JWKSMultipleMatchingKeys);
});

test("a key of another kind or for encryption is not used", async () => {
  const { provider, old, keyFor } = await issuer();
  provider.keys = [{ ...old, jwk: { ...old.jwk, use: "enc" } }];
  await expect(keyFor("old")).rejects.toBeInstanceOf(errors.JWKSNoMatchingKey);
  await expect(keyFor("old", "RS256")).rejects.toBeInstanceOf(errors.JWKSNoMatchingKey);
});

const hostile: [string, (response: ServerResponse) => unknown, RegExp][] = [
  ["a redirect", (to) => to.writeHead(302, { location: "http://169.254.169.254/" }).end(), /answered 302/],
  ["a redirect to itself", (to) => to.writeHead(307, { location: "/jwks" }).end(), /answered 307/],
  ["something that is not JSON", (to) => to.end("<html>"), /did not send JSON/],
  ["more than 256 KiB", (to) => to.end(`{"keys":[${" ".repeat(300_000)}]}`), /sent too much/],
  ["an endless answer", (to) => void endless(to), /sent too much/],
  ["half an answer", (to) => to.writeHead(200, { "content-length": "100" }).write("{", () => to.destroy()), /./],
  ["an answer that never comes", () => undefined, /aborted/],
  ["an answer that never ends", (to) => to.writeHead(200).write("{"), /aborted/],
];

function endless(to: ServerResponse): void {
  while (!to.destroyed && to.write(" ".repeat(1024)));
  if (!to.destroyed) to.once("drain", () => endless(to));
}

test.each(hostile)("%s is no key set", async (_what, respond, refusal) => {
  const { provider } = await issuer();
  provider.respond = (to) => void respond(to);
  await expect(keySetFetcher({ loopback: true }, { timeoutMs: 300 })(provider.url)).rejects.toThrow(refusal);
  expect(provider.requests).toBe(1);
});

test("in production a name that leads to this machine is refused where the connection is made", async () => {
  const { provider } = await issuer();
  const port = new URL(provider.url).port;
  await expect(keySetFetcher({ loopback: false })(`https://localhost:${port}/jwks`)).rejects.toThrow("not public");
  await expect(keySetFetcher({ loopback: false })(provider.url)).rejects.toThrow("https");
  expect(provider.requests).toBe(0);
});

test.each([
  ["inside only", ["10.0.0.1"]],
  ["inside as well", ["93.184.215.14", "169.254.169.254"]],
  ["nowhere", []],
])("a public name that leads %s is refused before anything is sent", async (_where, found) => {
  const addresses = found.map((address) => ({ address, family: 4 }));
  const fetcher = keySetFetcher({ loopback: false }, { resolve: async () => addresses });
  await expect(fetcher("https://keys.example.com/jwks")).rejects.toThrow("not public");
});
