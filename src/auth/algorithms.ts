import { TokenAlgorithm } from "#gen/posthorn/v1/admin_service_pb.ts";

/** What a token's header may say for each algorithm of the contract (RFC 7518 §3.1, RFC 8037 §3.1, RFC 9864 §2.2). */
const JOSE_NAMES: ReadonlyMap<number, readonly [string, ...string[]]> = new Map([
  [TokenAlgorithm.HS256, ["HS256"]],
  [TokenAlgorithm.RS256, ["RS256"]],
  [TokenAlgorithm.ES256, ["ES256"]],
  [TokenAlgorithm.EDDSA, ["EdDSA", "Ed25519"]],
]);

/** The JOSE names of a TokenAlgorithm, the usual one first. */
export function joseNames(algorithm: number): readonly [string, ...string[]] {
  const names = JOSE_NAMES.get(algorithm);
  if (names === undefined) throw new Error(`unknown token algorithm ${algorithm}`);
  return names;
}
