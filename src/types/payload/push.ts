import { createHash } from "node:crypto";
import { ErrorReason } from "#gen/posthorn/v1/error_pb.ts";
import type { Clock } from "#src/clock.ts";
import { Fault, invalidField, notFound, tooMany } from "#src/errors.ts";
import type { NewId } from "#src/ids.ts";
import type { Db, Store } from "#src/store/store.ts";
import { lockType } from "../queries.ts";
import { compile } from "./contract.ts";
import { DescriptorFault } from "./descriptor-fault.ts";
import { readDescriptorSet } from "./descriptor-set.ts";
import type { Judging } from "./judging.ts";
import { addContract, type ContractRow, findContract, lockTotalSize } from "./queries.ts";

export type PushDeps = { store: Store; clock: Clock; newId: NewId; judging: Judging };

/** What is pushed, and by whom. */
export type Pushed = {
  tenantId: string;
  actor: string;
  type: string;
  descriptorSet: Uint8Array;
  message: string;
  /** Push only if this is still current; 0: in any case. */
  version: number;
};

/** Per type, and bytes of descriptors per tenant. */
const MAX_VERSIONS = 500;
const MAX_TENANT_BYTES = 16 * 1024 * 1024;

/**
 * Makes a message the payload contract of a type, or a new version of it the current one. `audit` is written in the same
 * transaction. `created` is false when the same is current already. Throws INVALID_REQUEST naming what is wrong with the
 * descriptors, NOT_FOUND, ETAG_MISMATCH or TOO_MANY_RESOURCES.
 */
export async function pushContract(
  { store, clock, newId, judging }: PushDeps,
  pushed: Pushed,
  audit: (db: Db) => Promise<void>,
): Promise<{ row: ContractRow; created: boolean }> {
  const { tenantId, type, message } = pushed;
  const { bytes, digest } = checked(pushed.descriptorSet, message, judging);
  return store.tenantDb(tenantId, async (db) => {
    const stored = await lockType(db, tenantId, type);
    if (stored === undefined) throw notFound("type");
    const current = stored.payloadVersion ?? 0;
    if (pushed.version !== 0 && pushed.version !== current) throw new Fault(ErrorReason.ETAG_MISMATCH);
    const before = current === 0 ? undefined : await findContract(db, tenantId, type, current);
    if (before !== undefined && isSame(before, message, digest)) return { row: before, created: false };
    await checkRoom(db, tenantId, current, bytes.byteLength);
    const row: ContractRow = {
      ...{ tenantId, type, message, digest },
      version: current + 1,
      id: newId(),
      descriptorSet: bytes,
      createdAt: clock(),
      createdBy: pushed.actor,
    };
    await addContract(db, row, row.createdAt);
    await audit(db);
    return { row, created: true };
  });
}

/** Everything that can be wrong with descriptors, as INVALID_REQUEST. */
export function checked(descriptorSet: Uint8Array, message: string, judging: Judging) {
  try {
    const { bytes, files } = readDescriptorSet(descriptorSet, message);
    const compiled = compile(files, message, judging);
    return { bytes, compiled, digest: createHash("sha256").update(bytes).digest() };
  } catch (error) {
    if (error instanceof DescriptorFault) throw invalidField("descriptor_set", error.message);
    throw error;
  }
}

export function isSame(row: ContractRow, message: string, digest: Uint8Array): boolean {
  return row.message === message && Buffer.compare(row.digest, digest) === 0;
}

async function checkRoom(db: Db, tenantId: string, versions: number, bytes: number): Promise<void> {
  if (versions >= MAX_VERSIONS) {
    throw tooMany("payload_contract", MAX_VERSIONS, "They are deleted with their type.");
  }
  if ((await lockTotalSize(db, tenantId)) + bytes > MAX_TENANT_BYTES) {
    throw new Fault(ErrorReason.TOO_MANY_RESOURCES, {
      message: `The descriptors of all payload contracts would have more than ${MAX_TENANT_BYTES} bytes together.`,
      metadata: { resource: "payload_contract_bytes", limit: `${MAX_TENANT_BYTES}` },
      quota: [{ subject: "payload_contract_bytes", description: `at most ${MAX_TENANT_BYTES}` }],
    });
  }
}
