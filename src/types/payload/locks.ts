/**
 * Names of the advisory locks of types' contracts, hashed as Postgres does: whoever stores what a contract has judged
 * shares one until its transaction ends (accept/fence-contracts.ts), and a push has it alone. Taken in the order of their
 * hashes, before the row of a type.
 */
export function contractLocks(tenantId: string, types: readonly string[]): string[] {
  return types.map((type) => `${tenantId} payload_contract ${type}`);
}
