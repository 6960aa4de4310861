import { Tenant_State } from "#gen/posthorn/v1/admin_service_pb.ts";
import { ErrorReason } from "#gen/posthorn/v1/error_pb.ts";
import { Fault } from "#src/errors.ts";

/**
 * The same answer for every defect of a credential: whoever forges one learns neither how far they came nor which
 * tenants exist. `why` is for the log; it must not hold the credential or a part of it.
 */
export function credentialInvalid(why: string): Fault {
  return new Fault(ErrorReason.CREDENTIAL_INVALID, { cause: new Error(`credential refused: ${why}`) });
}

export function isActive(tenantState: number): boolean {
  return tenantState === Tenant_State.ACTIVE;
}

/** Only for a credential that has proved itself: others must not learn how a tenant stands. */
export function refuseSuspended(tenantState: number): void {
  if (!isActive(tenantState)) throw new Fault(ErrorReason.TENANT_SUSPENDED);
}
