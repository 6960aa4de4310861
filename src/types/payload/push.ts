import { createHash } from "node:crypto";
import type { DescMessage } from "@bufbuild/protobuf";
import { ErrorReason } from "#gen/posthorn/v1/error_pb.ts";
import type { Clock } from "#src/clock.ts";
import { Fault, invalidField, notFound, tooMany } from "#src/errors.ts";
import type { NewId } from "#src/ids.ts";
import type { Db, Store } from "#src/store/store.ts";
import { findType, lockType } from "../queries.ts";
import type { NotificationTypeRow } from "../type.ts";
import { type Break, breaksBetween } from "./breaks.ts";
import { type Compiled, compile, describeContract } from "./contract.ts";
import { DescriptorFault } from "./descriptor-fault.ts";
import { readDescriptorSet } from "./descriptor-set.ts";
import type { Judging } from "./judging.ts";
import { addContract, type ContractRow, findContract, lockContract, lockTotalSize } from "./queries.ts";
import { lookAtWaiting, type Reach } from "./waiting.ts";
import { wordingBreaks } from "./wording.ts";

export type PushDeps = { store: Store; clock: Clock; newId: NewId; judging: Judging };

/** What shall be the contract of a tenant's type. */
export type Wanted = { tenantId: string; type: string; descriptorSet: Uint8Array; message: string };

export type Pushed = Wanted & {
  actor: string;
  /** Push only if this is still current; 0: in any case. */
  version: number;
};

export type Checked = { breaks: Break[]; reach: Reach; version: number; unchanged: boolean };

/** Per type, and bytes of descriptors per tenant. */
const MAX_VERSIONS = 500;
const MAX_TENANT_BYTES = 16 * 1024 * 1024;
const NOTHING: Reach = { notifications: 0, batched: 0, fanouts: 0, planned: 0, capped: false };

/** What a push would break, which it does not do. Throws INVALID_REQUEST about the descriptors, or NOT_FOUND. */
export async function checkContract(deps: PushDeps, wanted: Wanted): Promise<Checked> {
  const { version, unchanged, breaks, reach } = await look(deps, wanted, digested(deps, wanted));
  return { version, unchanged, breaks, reach };
}

/**
 * Makes a message the payload contract of a type, or a new version of it the current one. `changed` writes down, in the
 * same transaction, that the type is no longer what it was before. `created` is false when the same is current already.
 * Throws INVALID_REQUEST naming what is wrong with the descriptors, PAYLOAD_INCOMPATIBLE, NOT_FOUND, ETAG_MISMATCH or
 * TOO_MANY_RESOURCES.
 *
 * What waits is looked at twice: at all of it before the contract is locked, and with the lock at what came meanwhile.
 * From then on whatever is stored waits for the lock, and is judged by the new version (accept/fence-contracts.ts).
 */
export async function pushContract(
  deps: PushDeps,
  pushed: Pushed,
  changed: (db: Db, before: NotificationTypeRow) => Promise<void>,
): Promise<{ row: ContractRow; created: boolean; reach: Reach }> {
  const { tenantId, type, message } = pushed;
  const set = digested(deps, pushed);
  const since = deps.clock();
  const looked = await look(deps, pushed, set);
  if (pushed.version !== 0 && pushed.version !== looked.version) throw new Fault(ErrorReason.ETAG_MISMATCH);
  if (looked.before !== undefined && looked.unchanged) return { row: looked.before, created: false, reach: NOTHING };
  if (looked.breaks.length > 0) throw incompatible(looked.breaks);
  return deps.store.tenantDb(tenantId, async (db) => {
    await lockContract(db, tenantId, type);
    const stored = await lockType(db, tenantId, type);
    if (stored === undefined) throw notFound("type");
    if (stored.payloadId !== (looked.before?.id ?? null)) {
      // Somebody was faster. With the same, it is done.
      const current = await findContract(db, tenantId, type, stored.payloadVersion ?? 0);
      if (current !== undefined && isSame(current, message, set.digest) && pushed.version === 0) {
        return { row: current, created: false, reach: NOTHING };
      }
      throw new Fault(ErrorReason.ETAG_MISMATCH);
    }
    const version = looked.version + 1;
    await checkRoom(db, tenantId, looked.version, set.bytes.byteLength);
    const contract = { ...set.compiled, id: "", version };
    const late = await lookAtWaiting((page) => page(db), { tenantId, type, contract, now: deps.clock(), since });
    // It may be another by now.
    const unworded = wordingBreaks(stored.wording, looked.desc, contract.desc);
    if (unworded.length + late.breaks.length > 0) throw incompatible([...unworded, ...late.breaks]);
    const row: ContractRow = {
      ...{ tenantId, type, message, version, digest: set.digest },
      id: deps.newId(),
      descriptorSet: set.bytes,
      createdAt: deps.clock(),
      createdBy: pushed.actor,
    };
    await addContract(db, row, row.createdAt);
    await changed(db, stored);
    return { row, created: true, reach: looked.reach };
  });
}

type Digested = { bytes: Uint8Array; digest: Uint8Array; compiled: Compiled };

/** Everything that can be wrong with descriptors, as INVALID_REQUEST. */
function digested({ judging }: PushDeps, { descriptorSet, message }: Wanted): Digested {
  try {
    const { bytes, files } = readDescriptorSet(descriptorSet, message);
    const compiled = compile(files, message, judging);
    return { bytes, compiled, digest: createHash("sha256").update(bytes).digest() };
  } catch (error) {
    if (error instanceof DescriptorFault) throw invalidField("descriptor_set", error.message);
    throw error;
  }
}

async function look(
  { store, clock }: PushDeps,
  { tenantId, type, message }: Wanted,
  set: Digested,
): Promise<Checked & { before: ContractRow | undefined; desc: DescMessage | undefined }> {
  const { before, wording } = await store.tenantDb(tenantId, async (db) => {
    const row = await findType(db, tenantId, type);
    if (row === undefined) throw notFound("type");
    const { payloadVersion, wording } = row;
    return {
      wording,
      before: payloadVersion === null ? undefined : await findContract(db, tenantId, type, payloadVersion),
    };
  });
  const version = before?.version ?? 0;
  if (before !== undefined && isSame(before, message, set.digest)) {
    return { before, version, desc: undefined, unchanged: true, breaks: [], reach: NOTHING };
  }
  const contract = { ...set.compiled, id: "", version: version + 1 };
  // What cannot be judged by any more is replaced by a push as anything is.
  const desc = before && describeContract(before);
  const breaks = [
    ...(desc === undefined ? [] : breaksBetween(desc, contract.desc)),
    ...wordingBreaks(wording, desc, contract.desc),
  ];
  const waiting = await lookAtWaiting((page) => store.tenantDb(tenantId, page), {
    ...{ tenantId, type, contract, now: clock(), since: undefined },
  });
  return { before, version, desc, unchanged: false, breaks: [...breaks, ...waiting.breaks], reach: waiting.reach };
}

function incompatible(breaks: readonly Break[]): Fault {
  const [first] = breaks;
  const more = breaks.length > 1 ? ` (and ${breaks.length - 1} more)` : "";
  return new Fault(ErrorReason.PAYLOAD_INCOMPATIBLE, {
    message: `${first?.path}: ${first?.description}${more}`,
    metadata: { breaks: `${breaks.length}` },
    fields: breaks.map(({ path, description, rule }) => ({ field: path, description: `${description} (${rule})` })),
  });
}

function isSame(row: ContractRow, message: string, digest: Uint8Array): boolean {
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
