import { importSPKI } from "jose";
import { type CreateTokenIssuerRequest, TokenAlgorithm } from "#gen/posthorn/v1/admin_service_pb.ts";
import { invalidField } from "#src/errors.ts";
import { joseNames } from "./algorithms.ts";
import { keySetUrlFault, type Reach } from "./jwks-fetch.ts";

/** What an issuer's signatures are checked with. */
export type IssuerKey =
  | { kind: "secret"; secret: Uint8Array }
  | { kind: "pem"; pem: string }
  | { kind: "jwks"; url: string };

/** The key of a request. Throws INVALID_REQUEST when it does not fit the algorithm or could never be used. */
export async function requestedKey(
  { algorithm, key }: Pick<CreateTokenIssuerRequest, "algorithm" | "key">,
  reach: Reach,
): Promise<IssuerKey> {
  switch (key.case) {
    case "secret":
      if (algorithm !== TokenAlgorithm.HS256) {
        throw invalidField("secret", "is only for HS256; this algorithm needs a public key");
      }
      return { kind: "secret", secret: key.value };
    case "publicKeyPem":
      refuseShared(algorithm, "public_key_pem");
      await checkPem(key.value, algorithm);
      return { kind: "pem", pem: key.value };
    case "jwksUrl": {
      refuseShared(algorithm, "jwks_url");
      const fault = keySetUrlFault(key.value, reach);
      if (fault !== undefined) throw invalidField("jwks_url", fault);
      return { kind: "jwks", url: key.value };
    }
    case undefined:
      throw invalidField("key", "one of secret, public_key_pem and jwks_url is required");
    default:
      return key satisfies never;
  }
}

/** A public key used as a shared secret would let everyone sign. */
function refuseShared(algorithm: TokenAlgorithm, field: string): void {
  if (algorithm === TokenAlgorithm.HS256) throw invalidField(field, "is not for HS256, which needs a shared secret");
}

async function checkPem(pem: string, algorithm: TokenAlgorithm): Promise<void> {
  const [name] = joseNames(algorithm);
  const key = await importSPKI(pem, name).catch(() => {
    throw invalidField("public_key_pem", `must be a public key for ${name}, beginning -----BEGIN PUBLIC KEY-----`);
  });
  const { modulusLength } = key.algorithm as { modulusLength?: number };
  if (modulusLength !== undefined && modulusLength < 2048) {
    throw invalidField("public_key_pem", "must have 2,048 bits or more (RFC 7518 §3.3)");
  }
}
