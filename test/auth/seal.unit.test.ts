import { randomBytes } from "node:crypto";
import fc from "fast-check";
import { expect, test } from "vitest";
import { sealer } from "#src/auth/seal.ts";

const key = randomBytes(32);
const place = { tenantId: "a", row: "token_issuer:1" };
const secret = Buffer.from("a secret of some length");

test("what was sealed opens in its place", () => {
  const { seal, open } = sealer(key, [], randomBytes);
  fc.assert(
    fc.property(fc.uint8Array(), (plaintext) => {
      expect(Buffer.from(open(seal(plaintext, place), place))).toEqual(Buffer.from(plaintext));
    }),
  );
});

test("a ciphertext moved to another tenant or row does not open", () => {
  const { seal, open } = sealer(key, [], randomBytes);
  const sealed = seal(secret, place);
  expect(() => open(sealed, { ...place, tenantId: "b" })).toThrow();
  expect(() => open(sealed, { ...place, row: "token_issuer:2" })).toThrow();
  // Nor does a place that only reads the same when written together.
  expect(() => open(sealed, { tenantId: "atoken", row: "_issuer:1" })).toThrow();
});

test("no bit of a sealed value can be changed, and none left off", () => {
  const { seal, open } = sealer(key, [], randomBytes);
  const sealed = seal(secret, place);
  for (let bit = 0; bit < sealed.length * 8; bit++) {
    const changed = Uint8Array.from(sealed);
    changed[bit >> 3]! ^= 1 << (bit & 7);
    expect(() => open(changed, place)).toThrow();
  }
  for (let length = 0; length < sealed.length; length++) {
    expect(() => open(sealed.subarray(0, length), place)).toThrow();
  }
});

test("the same secret is sealed differently each time", () => {
  const { seal } = sealer(key, [], randomBytes);
  expect(Buffer.from(seal(secret, place))).not.toEqual(Buffer.from(seal(secret, place)));
});

test("after a rotation old values open with the former key, are known as stale, and new ones are not", () => {
  const next = randomBytes(32);
  const sealed = sealer(key, [], randomBytes).seal(secret, place);
  const rotated = sealer(next, [key], randomBytes);
  expect(Buffer.from(rotated.open(sealed, place))).toEqual(secret);
  expect(rotated.isStale(sealed)).toBe(true);
  expect(rotated.isStale(rotated.seal(secret, place))).toBe(false);
  expect(() => sealer(next, [], randomBytes).open(sealed, place)).toThrow("not configured");
});
