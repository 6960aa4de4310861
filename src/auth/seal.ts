import { createCipheriv, createDecipheriv, createSecretKey, hkdfSync, type KeyObject } from "node:crypto";

/**
 * Keeps small secrets in the database unreadable to whoever has only the database: AES-256-GCM under a key derived from
 * the master key. What is sealed for one row of one tenant opens nowhere else.
 */
export type Sealer = {
  seal(plaintext: Uint8Array, place: Place): Uint8Array;
  /** Throws when it was changed, moved to another place, or sealed under a key that is not known. */
  open(sealed: Uint8Array, place: Place): Uint8Array;
  /** Whether it was sealed under a former master key and should be sealed again. */
  isStale(sealed: Uint8Array): boolean;
};

/** Where a sealed value stands: bound into it as associated data. */
export type Place = { tenantId: string; row: string };

// format (1) ‖ key version (4) ‖ nonce (12) ‖ ciphertext ‖ tag (16). The version is a fingerprint of the key, so that
// no numbers have to be kept in step with the configuration.
const FORMAT = 1;
const VERSION_BYTES = 4;
const NONCE_BYTES = 12;
const TAG_BYTES = 16;
const HEAD_BYTES = 1 + VERSION_BYTES;

type SealKey = { version: Buffer; key: KeyObject };

/** `previous` are former master keys: opened with, never sealed with. Master keys are 32 bytes. */
export function sealer(
  masterKey: Uint8Array,
  previous: readonly Uint8Array[],
  random: (count: number) => Uint8Array,
): Sealer {
  const current = derive(masterKey);
  const known = [current, ...previous.map(derive)];
  return {
    seal: (plaintext, place) => seal(current, plaintext, place, random(NONCE_BYTES)),
    open(sealed, place) {
      const key = known.find(({ version }) => version.equals(versionOf(sealed)));
      if (key === undefined) throw new Error("sealed under a master key that is not configured");
      return open(key, sealed, place);
    },
    isStale: (sealed) => !current.version.equals(versionOf(sealed)),
  };
}

/** The nonce must never repeat under a key: random ones are safe for 2^32 values (NIST SP 800-38D §8.3). */
function seal(key: SealKey, plaintext: Uint8Array, place: Place, nonce: Uint8Array): Uint8Array {
  const cipher = createCipheriv("aes-256-gcm", key.key, nonce, { authTagLength: TAG_BYTES });
  cipher.setAAD(associated(place, key.version));
  const body = Buffer.concat([cipher.update(plaintext), cipher.final()]);
  return Buffer.concat([Buffer.of(FORMAT), key.version, nonce, body, cipher.getAuthTag()]);
}

function open(key: SealKey, sealed: Uint8Array, place: Place): Uint8Array {
  const nonce = sealed.subarray(HEAD_BYTES, HEAD_BYTES + NONCE_BYTES);
  const body = sealed.subarray(HEAD_BYTES + NONCE_BYTES, sealed.length - TAG_BYTES);
  const decipher = createDecipheriv("aes-256-gcm", key.key, nonce, { authTagLength: TAG_BYTES });
  decipher.setAAD(associated(place, key.version));
  decipher.setAuthTag(sealed.subarray(sealed.length - TAG_BYTES));
  return Buffer.concat([decipher.update(body), decipher.final()]);
}

function versionOf(sealed: Uint8Array): Uint8Array {
  if (sealed[0] !== FORMAT || sealed.length < HEAD_BYTES + NONCE_BYTES + TAG_BYTES) {
    throw new Error("not a sealed value");
  }
  return sealed.subarray(1, HEAD_BYTES);
}

/** As JSON, so that no two places can be written alike. */
function associated({ tenantId, row }: Place, version: Buffer): Buffer {
  return Buffer.from(JSON.stringify([tenantId, row, version.toString("hex")]));
}

function derive(masterKey: Uint8Array): SealKey {
  const part = (info: string, bytes: number) => Buffer.from(hkdfSync("sha256", masterKey, "", info, bytes));
  return {
    version: part("posthorn seal version", VERSION_BYTES),
    key: createSecretKey(part("posthorn seal", 32)),
  };
}
