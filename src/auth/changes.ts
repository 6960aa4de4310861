import type { Invalidations } from "#src/broker/invalidations.ts";

/** Something about credentials that changed, and that every process must hear of at once. */
export type CredentialChange =
  | { kind: "api_key"; prefix: string }
  | { kind: "issuer"; issuer: string; audience: string }
  | { kind: "user"; userId: string };

/** Tells every process. Call it after the change is committed. */
export function publishChange(
  invalidations: Pick<Invalidations, "publish">,
  tenantId: string,
  change: CredentialChange,
): void {
  invalidations.publish("credential", tenantId, JSON.stringify(change));
}

/** What a "credential" invalidation says. */
export function readChange(key: string): CredentialChange {
  return JSON.parse(key) as CredentialChange;
}
