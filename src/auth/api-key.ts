import { hash, timingSafeEqual } from "node:crypto";
import type { RandomBytes } from "./random.ts";

// An API key is `phk_<id>_<secret>`: 12 characters that find its row and 43 that prove it (256 bits, base64url). The
// constant beginning is there for secret scanners.
const FORM = /^phk_[a-z2-7]{12}_[A-Za-z0-9_-]{43}$/;
const PREFIX_LENGTH = "phk_".length + 12;
/** RFC 4648 §6, small: 32 characters, so that five random bits choose one without bias. */
const ALPHABET = "abcdefghijklmnopqrstuvwxyz234567";

export type NewApiKey = {
  /** Shown once to the caller, kept by nobody here. */
  secret: string;
  /** Its public part: names the key in lists and finds it in the database. */
  prefix: string;
  hash: Uint8Array;
};

export function newApiKey(random: RandomBytes): NewApiKey {
  const id = [...random(12)].map((byte) => ALPHABET[byte & 31]).join("");
  const prefix = `phk_${id}`;
  const secret = `${prefix}_${Buffer.from(random(32)).toString("base64url")}`;
  return { secret, prefix, hash: secretHash(secret) };
}

/** The public part of something that has the form of an API key, else undefined. */
export function apiKeyPrefix(credential: string): string | undefined {
  return FORM.test(credential) ? credential.slice(0, PREFIX_LENGTH) : undefined;
}

/** SHA-256: the secret is 256 random bits, so a slow hash would add nothing but a way to exhaust this process. */
export function secretHash(secret: string): Buffer {
  return hash("sha256", secret, "buffer");
}

/** Whether two SHA-256 hashes are equal, in the same time whatever they hold. */
export function sameHash(a: Uint8Array, b: Uint8Array): boolean {
  return a.length === b.length && timingSafeEqual(a, b);
}
