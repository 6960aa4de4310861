import { LRUCache } from "lru-cache";
import type { Store, Tx } from "#src/store/store.ts";
import type { Logger } from "#src/telemetry/logger.ts";
import type { Metrics } from "#src/telemetry/metrics.ts";
import type { NotificationTypeRow } from "../type.ts";
import { type Contract, compileContract, type StoredContract } from "./contract.ts";
import type { Judging } from "./judging.ts";
import { findContract, readContract } from "./queries.ts";
import { StaleContract } from "./stale.ts";
import { UnusableContract } from "./unusable.ts";
import { compileWording, type Wording } from "./wording.ts";

export type ContractsDeps = {
  store: Store;
  judging: Judging;
  log: Pick<Logger, "error">;
  metrics: Pick<Metrics, "contractsUnusable">;
};

/** Finds types as `find` does, with their contracts. */
export function findingTyped(find: FindType, contracts: Contracts): FindTyped {
  return (tenantId, key) => {
    const found = find(tenantId, key);
    return found instanceof Promise ? found.then((row) => row && contracts.with(row)) : found && contracts.with(found);
  };
}

type Maybe<T> = Promise<T | undefined> | T | undefined;
type FindType = (tenantId: string, key: string) => Maybe<NotificationTypeRow>;
export type FindTyped = (tenantId: string, key: string) => Maybe<TypedRow>;

/** What a type has of its payloads. */
export type Payloads = { contract?: Contract; words?: Wording };

/** A type with the contract that its payloads are judged by, and with what words them. */
export type TypedRow = NotificationTypeRow & Payloads;

/** The part of a type that says which. */
export type PayloadsOf = Pick<NotificationTypeRow, "key" | "payloadId" | "payloadVersion" | "wording">;

/**
 * Contracts ready to judge by. A version never changes, so a copy is good for as long as its type names it; which version
 * that is the type's own copy says (catalogue.ts). Bounded over all, and a tenant's own leave first when it has its share.
 */
export type Contracts = {
  /**
   * Without waiting where it can: the type as it is, when it has no contract. Throws StaleContract when that is gone, and
   * UnusableContract when nothing can be judged by it.
   */
  with(row: NotificationTypeRow): TypedRow | Promise<TypedRow>;
  /** The same in a transaction of the caller's, which sees the type as it is. */
  within(tx: Tx, tenantId: string, type: PayloadsOf): Promise<Payloads>;
};

export type ContractsConfig = {
  /** Heap that all may take, roughly. */
  maxBytes: number;
  /** The share of a tenant in it. */
  tenantBytes: number;
};

const DEFAULTS: ContractsConfig = { maxBytes: 64 * 1024 * 1024, tenantBytes: 16 * 1024 * 1024 };
/** What one takes beside its descriptors, and how much more these are when they are read. */
const BASE_BYTES = 16 * 1024;
const BYTES_PER_BYTE = 30;
/** Contracts known to be unusable; of more, some are read again for every Send. */
const MAX_UNUSABLE = 1_000;

type Ready = {
  tenantId: string;
  contract: Contract;
  bytes: number;
  /** The type as it was found last, with it: every Send asks. */
  found?: { row: NotificationTypeRow; typed: TypedRow };
};

export function contracts(
  { store, judging, log, metrics }: ContractsDeps,
  config: Partial<ContractsConfig> = {},
): Contracts {
  const { maxBytes, tenantBytes } = { ...DEFAULTS, ...config };
  const used = new Map<string, number>();
  const ready = new LRUCache<string, Ready>({
    maxSize: maxBytes,
    sizeCalculation: ({ bytes }) => bytes,
    dispose: ({ tenantId, bytes }) => {
      const left = (used.get(tenantId) ?? 0) - bytes;
      if (left > 0) used.set(tenantId, left);
      else used.delete(tenantId);
    },
  });
  const reads = new Map<string, Promise<Contract>>();
  /** As long as the process, for what it is made of does not change either. */
  const unusable = new LRUCache<string, UnusableContract>({ max: MAX_UNUSABLE });

  const keep = (entry: Ready): void => {
    const room = tenantBytes - entry.bytes;
    if ((used.get(entry.tenantId) ?? 0) > room) {
      // From the least used on.
      for (const id of [...ready.rkeys()]) {
        if ((used.get(entry.tenantId) ?? 0) <= room) break;
        if (ready.peek(id)?.tenantId === entry.tenantId) ready.delete(id);
      }
    }
    used.set(entry.tenantId, (used.get(entry.tenantId) ?? 0) + entry.bytes);
    ready.set(entry.contract.id, entry);
  };

  const checkUsable = (id: string): void => {
    const failed = unusable.get(id);
    if (failed === undefined) return;
    metrics.contractsUnusable.inc();
    throw failed;
  };

  const made = (tenantId: string, { key, payloadId }: PayloadsOf, stored: StoredContract | undefined): Contract => {
    if (stored === undefined || stored.id !== payloadId) throw new StaleContract([key]);
    checkUsable(stored.id);
    try {
      const contract = compileContract(key, stored, judging);
      keep({ tenantId, contract, bytes: BASE_BYTES + BYTES_PER_BYTE * stored.descriptorSet.byteLength });
      return contract;
    } catch (error) {
      if (error instanceof UnusableContract) {
        unusable.set(stored.id, error);
        metrics.contractsUnusable.inc();
        const { version } = stored;
        log.error({ err: error, tenant: tenantId, type: key, version }, "cannot use a stored payload contract");
      }
      throw error;
    }
  };

  const read = async (row: NotificationTypeRow): Promise<Contract> => {
    const { tenantId, key, payloadVersion } = row;
    return made(
      tenantId,
      row,
      await store.tenantDb(tenantId, (db) => findContract(db, tenantId, key, payloadVersion ?? 0)),
    );
  };

  return {
    with(row) {
      const id = row.payloadId;
      if (id === null) return row;
      const known = ready.get(id);
      if (known !== undefined) {
        if (known.found?.row === row) return known.found.typed;
        const typed = { ...row, ...worded(row, known.contract) };
        known.found = { row, typed };
        return typed;
      }
      checkUsable(id);
      let reading = reads.get(id);
      if (reading === undefined) {
        reading = read(row).finally(() => reads.delete(id));
        reads.set(id, reading);
      }
      return reading.then((contract) => ({ ...row, ...worded(row, contract) }));
    },
    async within(tx, tenantId, type) {
      if (type.payloadId === null) return {};
      const known = ready.get(type.payloadId)?.contract;
      if (known !== undefined) return worded(type, known);
      return worded(type, made(tenantId, type, await readContract(tx, tenantId, type.key, type.payloadVersion ?? 0)));
    },
  };
}

function worded({ wording }: PayloadsOf, contract: Contract): Payloads {
  return { contract, ...(wording !== null && { words: compileWording(wording, contract.desc) }) };
}
