import { createHash } from "node:crypto";
import { clone, create, toJson } from "@bufbuild/protobuf";
import {
  RecipientsSchema,
  type SendRequest,
  SendRequestSchema,
  type SendResponse,
} from "#gen/posthorn/v1/send_service_pb.ts";
import type { Clock } from "#src/clock.ts";
import { Fault } from "#src/errors.ts";
import type { NewId } from "#src/ids.ts";
import type { Store } from "#src/store/store.ts";
import type { Metrics } from "#src/telemetry/metrics.ts";
import type { Queue, Queued } from "../queue.ts";
import { commitGroup, type Stored } from "./commit.ts";
import { groupCommit } from "./group.ts";
import { prepare, type TypeDefaults } from "./prepare.ts";
import type { Submission } from "./submission.ts";

export type AcceptConfig = {
  groupWindowMs: number;
  groupMaxItems: number;
  idempotencyTtlHours: number;
  /** Notifications waiting to be stored beyond this are refused with OVERLOADED. */
  maxWaiting: number;
};

export type AcceptDeps = {
  store: Store;
  queue: Queue;
  clock: Clock;
  newId: NewId;
  metrics: Metrics;
  /** The type, or undefined; cached. */
  findType(tenantId: string, key: string): Promise<TypeDefaults | undefined> | TypeDefaults | undefined;
  /** How long a dedup key counts when the Send does not say. */
  dedupWindowMs: number;
  /** The users' time zones. */
  zonesOf(tenantId: string, userIds: readonly string[]): Promise<ReadonlyMap<string, string>>;
};

export type Sender = { tenantId: string; actor: string };

/**
 * Accepts Sends: when it answers, the notifications are committed. Throws a Fault for a refused Send.
 */
export type Accept = (sender: Sender, request: SendRequest) => Promise<SendResponse>;

export const DEFAULT_TYPE = "general";

export function accepting(deps: AcceptDeps, config: AcceptConfig, slots: readonly number[]): Accept {
  let turn = 0;
  const commit = async (tenantId: string, group: readonly Submission[]): Promise<Stored[]> => {
    const now = deps.clock();
    const slot = slots[turn++ % slots.length] ?? 0;
    const idempotencyTtlMs = config.idempotencyTtlHours * 3_600_000;
    const stored = await deps.store.tenant(tenantId, (tx) =>
      commitGroup(tx, tenantId, group, { now, slot, idempotencyTtlMs }),
    );
    // Not awaited: what is committed will be queued, if not by this then by the reconciler.
    void queueStored(deps.queue, tenantId, group, stored);
    return stored;
  };
  const submit = groupCommit<Submission, Stored>(commit, weigh, claims, {
    windowMs: config.groupWindowMs,
    maxWeight: config.groupMaxItems,
    concurrency: 2,
    maxWaitingWeight: config.maxWaiting,
  });

  return async (sender, request) => {
    const key = request.type || DEFAULT_TYPE;
    const found = deps.findType(sender.tenantId, key);
    const type = found instanceof Promise ? await found : found;
    const now = deps.clock();
    const draft = prepare(request, type, now, deps.dedupWindowMs);
    const userIds = [...new Set(request.to?.userIds)];
    const zones = draft.local ? await deps.zonesOf(sender.tenantId, userIds) : undefined;
    const rows = userIds.map((userId) => ({ id: deps.newId(), userId, ...draft.times(zones?.get(userId) ?? "UTC") }));
    const result = await submit(sender.tenantId, {
      draft,
      rows,
      fanout: fansOut(request) ? { id: deps.newId(), request } : undefined,
      idempotency: request.idempotencyKey === "" ? undefined : { key: request.idempotencyKey, hash: hashOf(request) },
      actor: sender.actor,
      auditId: draft.bypassLimits ? deps.newId() : "",
    });
    if (result.kind === "refused") throw result.fault;
    return result.response;
  };
}

export function fansOut(request: SendRequest): boolean {
  const { topics = [], roles = [], everyone = false } = request.to ?? create(RecipientsSchema);
  return topics.length > 0 || roles.length > 0 || everyone;
}

async function queueStored(
  queue: Queue,
  tenantId: string,
  group: readonly Submission[],
  stored: readonly Stored[],
): Promise<void> {
  const items: Queued[] = [];
  const fanouts: Promise<void>[] = [];
  stored.forEach((result, index) => {
    const submission = group[index];
    if (result.kind !== "accepted" || submission === undefined) return;
    const priority = submission.draft.priority;
    for (const row of result.rows) if (row.scheduledAt === undefined) items.push({ id: row.id, priority });
    if (submission.fanout) fanouts.push(queue.enqueueFanout(tenantId, submission.fanout.id, priority, 0));
  });
  await Promise.all([queue.enqueue(tenantId, items, 0), ...fanouts]);
}

function weigh(submission: Submission): number {
  return Math.max(1, submission.rows.length);
}

function claims({ idempotency, draft, rows }: Submission): string[] {
  const keys = idempotency ? [`i${idempotency.key}`] : [];
  if (draft.dedup !== undefined) for (const row of rows) keys.push(`d${row.userId}\0${draft.dedup.key}`);
  return keys;
}

/** Hash of what the request asks for: without the key itself, and whatever order maps were written in. */
function hashOf(request: SendRequest): Uint8Array {
  const body = clone(SendRequestSchema, request);
  body.idempotencyKey = "";
  delete body.waitForDecision;
  const json = toJson(SendRequestSchema, body);
  return createHash("sha256").update(canonical(json)).digest();
}

function canonical(value: unknown): string {
  return JSON.stringify(value, (_, inner: unknown) =>
    typeof inner === "object" && inner !== null && !Array.isArray(inner)
      ? Object.fromEntries(Object.entries(inner).sort(([a], [b]) => (a < b ? -1 : 1)))
      : inner,
  );
}

/** Accepts many independent Sends; the outcome of each, in order. */
export async function acceptEach(
  accept: Accept,
  sender: Sender,
  requests: readonly SendRequest[],
  check: (request: SendRequest) => Fault | undefined,
): Promise<(SendResponse | Fault)[]> {
  return Promise.all(
    requests.map(async (request) => {
      const fault = check(request);
      if (fault !== undefined) return fault;
      try {
        return await accept(sender, request);
      } catch (error) {
        if (error instanceof Fault) return error;
        throw error;
      }
    }),
  );
}
