import { createHash } from "node:crypto";
import { create, toBinary } from "@bufbuild/protobuf";
import { ContentSchema } from "#gen/posthorn/v1/notification_pb.ts";
import {
  RecipientsSchema,
  type SendRequest,
  SendRequestSchema,
  type SendResponse,
} from "#gen/posthorn/v1/send_service_pb.ts";
import { mapInSlices } from "#src/breathe.ts";
import type { Clock } from "#src/clock.ts";
import { Fault, notFound } from "#src/errors.ts";
import type { NewId } from "#src/ids.ts";
import type { Cancelled } from "#src/notifications/cancel.ts";
import type { Store } from "#src/store/store.ts";
import { acceptCommit } from "#src/telemetry/conventions.ts";
import type { Metrics } from "#src/telemetry/metrics.ts";
import { type NextIn, recordedTrace, withWorkSpans } from "#src/telemetry/work-spans.ts";
import type { Contracts } from "#src/types/payload/contracts.ts";
import { StaleContract } from "#src/types/payload/stale.ts";
import { type LaneName, laneOf } from "../flow.ts";
import type { GiveWay } from "../give-way.ts";
import type { MemoryGuard } from "../memory.ts";
import type { Queue, Queued } from "../queue.ts";
import { answeredBefore } from "./answered.ts";
import { commitGroup, type Stored } from "./commit.ts";
import { commitCurrent } from "./commit-current.ts";
import { groupCommit, type Settle } from "./group.ts";
import { measureGroup, measureRefused } from "./measure.ts";
import { type Draft, prepare, type TypeDefaults } from "./prepare.ts";
import { dependsOnRecipient, type Recipient, type Recipients, rowsOf, type Submission } from "./submission.ts";

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
  /** The same, from the database. */
  reloadType(tenantId: string, key: string): Promise<TypeDefaults | undefined>;
  /** What a type as a transaction sees it has of its payloads, read in that transaction. */
  payloadsOf: Contracts["within"];
  /** How long a dedup key counts when the Send does not say. */
  dedupWindowMs: number;
  /** What of users their notifications depend on. */
  recipientsOf(tenantId: string, userIds: readonly string[]): Promise<ReadonlyMap<string, Recipient>>;
  /** Tells the users' streams of what newer ones took the place of. Called after the commit. */
  superseded(tenantId: string, notifications: readonly Cancelled[], at: Date): void;
};

export type Sender = { tenantId: string; actor: string };

/**
 * Accepts Sends, each for itself: when it answers, the notifications of those that are not refused are committed. One
 * outcome for each request, in their order: the answer, or why it is refused. Throws where a dependency fails in a way
 * that no caller is told of.
 */
export type Accept = (sender: Sender, requests: readonly SendRequest[]) => Promise<(SendResponse | Fault)[]>;

export const DEFAULT_TYPE = "general";

/** So many notifications are a little: what gathers in a window of 10 ms where callers send 10,000 a second one by one. */
const LITTLE = 100;

export function accepting(
  deps: AcceptDeps & { memory: Pick<MemoryGuard, "pressure" | "holder">; way: GiveWay },
  config: AcceptConfig,
  slots: readonly number[],
): Accept {
  let turn = 0;
  const commit = (tenantId: string, group: readonly Submission[], hurry: AbortSignal): Promise<Stored[]> =>
    withWorkSpans(
      () => acceptCommit(tenantId, group.length),
      group.map((submission) => submission.trace),
      (next) => commitTraced(tenantId, group, hurry, next),
    );
  const commitTraced = async (
    tenantId: string,
    group: readonly Submission[],
    hurry: AbortSignal,
    next: NextIn,
  ): Promise<Stored[]> => {
    const passed = await passing(tenantId, group, hurry);
    try {
      return await store(tenantId, group, next);
    } finally {
      passed?.();
    }
  };
  const passing = (
    tenantId: string,
    group: readonly Submission[],
    hurry: AbortSignal,
  ): Promise<() => void> | undefined => {
    // One that is critical takes with it, without a turn, whatever shares its group.
    const has = (lane: LaneName) => group.some(({ draft }) => laneOf(draft.priority).name === lane);
    if (has("critical")) deps.way.urgent();
    else if (group.reduce((sum, submission) => sum + weigh(submission), 0) <= LITTLE) deps.way.little(tenantId);
    else return deps.way.turn(tenantId, { isHigh: has("high"), hurry });
    return undefined;
  };
  const store = async (tenantId: string, group: readonly Submission[], next: NextIn): Promise<Stored[]> => {
    const began = performance.now();
    const now = deps.clock();
    const slot = slots[turn++ % slots.length] ?? 0;
    const idempotencyTtlMs = config.idempotencyTtlHours * 3_600_000;
    const stored = await commitCurrent(group, async (current) => {
      const { stored, superseded } = await deps.store.tenant(tenantId, (tx, last) =>
        commitGroup(tx, tenantId, current, { now, slot, idempotencyTtlMs }, last),
      );
      if (superseded.length > 0) deps.superseded(tenantId, superseded, now);
      return stored;
    });
    measureGroup(deps.metrics, group, stored, began);
    // Not awaited: what is committed will be queued, if not by this then by the reconciler.
    void queueStored(deps.queue, tenantId, group, stored, next);
    return stored;
  };
  const submit = groupCommit<Submission, Stored>(commit, weigh, claims, {
    windowMs: config.groupWindowMs,
    maxWeight: config.groupMaxItems,
    concurrency: 2,
    maxWaitingWeight: config.maxWaiting,
    littleWeight: LITTLE,
    memory: deps.memory,
  });

  const submissionOf = (
    sender: Sender,
    request: SendRequest,
    draft: Draft,
    known: Recipients,
    { callId, ...call }: Pick<Submission, "submittedAt" | "trace"> & { callId: string },
  ): Submission => ({
    ...call,
    draft,
    rows: rowsOf(draft, [...new Set(request.to?.userIds)], { newId: deps.newId, known }),
    fanout: fansOut(request) ? { id: deps.newId(), request } : undefined,
    idempotency: request.idempotencyKey === "" ? undefined : { key: request.idempotencyKey, hash: hashOf(request) },
    actor: sender.actor,
    bypass: draft.bypassLimits ? { auditIds: { notification: deps.newId(), fanout: deps.newId() }, callId } : undefined,
  });

  const attempt = async (
    sender: Sender,
    requests: readonly SendRequest[],
    fresh: Found,
    attemptsLeft: number,
  ): Promise<(SendResponse | Fault)[]> => {
    const { tenantId } = sender;
    const types = await typesOf(deps, tenantId, requests, fresh);
    const now = deps.clock();
    const drafts = await mapInSlices(requests, (request) =>
      orFault(() => {
        const type = types.get(request.type || DEFAULT_TYPE);
        if (type instanceof Fault) throw type;
        return prepare(request, type, now, deps.dedupWindowMs);
      }),
    );
    const answered = await answeredBefore(deps.store, tenantId, requests, drafts, { now, hashOf });
    measureRefused(deps.metrics, drafts, answered);
    const known = await recipientsOf(deps, tenantId, requests, drafts);
    const callId = requests.some(({ bypassRateLimit }) => bypassRateLimit) ? deps.newId() : "";
    const call = { submittedAt: performance.now(), trace: recordedTrace(), callId };
    const submissions = await mapInSlices(requests, (request, index) => {
      const draft = drafts[index] ?? notFound("type");
      return draft instanceof Fault
        ? (answered.get(index) ?? draft)
        : submissionOf(sender, request, draft, known, call);
    });
    const outcomes: (SendResponse | Fault)[] = [];
    const stale: number[] = [];
    const changed = new Set<string>();
    let open = submissions.length;
    await new Promise<void>((resolve, reject) => {
      const settled = (index: number, outcome: SendResponse | Fault) => {
        outcomes[index] = outcome;
        if (--open === 0) resolve();
      };
      // In one go, so that they share commits.
      submissions.forEach((submission, index) => {
        if (submission instanceof Fault || "results" in submission) {
          settled(index, submission);
          return;
        }
        const settle: Settle<Stored> = (result) => {
          if ("outcome" in result) {
            const { outcome } = result;
            if (outcome.kind === "refused" && outcome.fault instanceof StaleContract && attemptsLeft > 0) {
              stale.push(index);
              changed.add(submission.draft.type);
            }
            settled(index, outcome.kind === "refused" ? outcome.fault : outcome.response);
          } else if (result.error instanceof Fault) settled(index, result.error);
          else reject(result.error);
        };
        submit(tenantId, submission, settle, laneOf(submission.draft.priority).name === "critical");
      });
      if (open === 0) resolve();
    });
    if (stale.length === 0) return outcomes;
    // Judged anew.
    const reloaded = [...changed].map(
      async (key) => [key, await foundOrFault(() => deps.reloadType(tenantId, key))] as const,
    );
    const again = await attempt(
      sender,
      chosen(requests, stale),
      new Map(await Promise.all(reloaded)),
      attemptsLeft - 1,
    );
    stale.forEach((index, n) => {
      outcomes[index] = again[n] ?? notFound("type");
    });
    return outcomes;
  };
  return (sender, requests) => attempt(sender, requests, new Map(), RETRIES);
}

/** Pushes of payload contracts that a Send outlives. */
const RETRIES = 3;

function chosen<T>(from: readonly T[], indexes: readonly number[]): T[] {
  return indexes.flatMap((index) => from.slice(index, index + 1));
}

/** Types by their keys; a Fault: nothing can be sent of it now. */
type Found = ReadonlyMap<string, TypeDefaults | Fault | undefined>;

/**
 * The types that the requests name, each looked up once but for `fresh` ones; what is cached is there without waiting. One
 * whose contract is gone or cannot be used is its own requests' trouble.
 */
async function typesOf(
  { findType }: AcceptDeps,
  tenantId: string,
  requests: readonly SendRequest[],
  fresh: Found,
): Promise<Found> {
  const types = new Map(fresh);
  for (const { type } of requests) {
    const key = type || DEFAULT_TYPE;
    if (types.has(key)) continue;
    const found = orFault(() => findType(tenantId, key));
    types.set(key, found instanceof Promise ? await foundOrFault(() => found) : found);
  }
  return types;
}

/** Those who get something at a local time, or in their language, in one round trip. */
async function recipientsOf(
  deps: AcceptDeps,
  tenantId: string,
  requests: readonly SendRequest[],
  drafts: readonly (Draft | Fault)[],
): Promise<Recipients> {
  const userIds = requests.flatMap(({ to }, index) => {
    const draft = drafts[index];
    return draft !== undefined && !(draft instanceof Fault) && dependsOnRecipient(draft) ? (to?.userIds ?? []) : [];
  });
  return userIds.length === 0 ? undefined : deps.recipientsOf(tenantId, [...new Set(userIds)]);
}

function orFault<T>(work: () => T): T | Fault {
  try {
    return work();
  } catch (error) {
    if (error instanceof Fault) return error;
    throw error;
  }
}

async function foundOrFault<T>(work: () => Promise<T>): Promise<T | Fault> {
  try {
    return await work();
  } catch (error) {
    if (error instanceof Fault) return error;
    throw error;
  }
}

export function fansOut(request: SendRequest): boolean {
  const { topics = [], roles = [], everyone = false } = request.to ?? create(RecipientsSchema);
  return topics.length > 0 || roles.length > 0 || everyone;
}

/** Queues what is to be decided at once. The reconciler does where it fails. */
export async function queueStored(
  queue: Queue,
  tenantId: string,
  group: readonly Submission[],
  stored: readonly Stored[],
  next: NextIn,
): Promise<void> {
  const items: Queued[] = [];
  const fanouts: Promise<void>[] = [];
  stored.forEach((result, index) => {
    const submission = group[index];
    if (result.kind !== "accepted" || submission === undefined) return;
    const priority = submission.draft.priority;
    const trace = next(submission.trace);
    for (const row of result.rows) if (row.scheduledAt === undefined) items.push({ id: row.id, priority, trace });
    if (submission.fanout)
      fanouts.push(queue.enqueueFanout(tenantId, { id: submission.fanout.id, priority, trace }, 0));
  });
  await Promise.all([queue.enqueue(tenantId, items, "first"), ...fanouts]);
}

function weigh(submission: Submission): number {
  return Math.max(1, submission.rows.length);
}

export function claims({ idempotency, draft, rows }: Submission): string[] {
  const keys = idempotency ? [`i${idempotency.key}`] : [];
  if (draft.dedup !== undefined) for (const row of rows) keys.push(`d${row.userId}\0${draft.dedup.key}`);
  return keys;
}

/** Hash of what the request asks for: without the key itself, and whatever order the keys of `data` were written in. */
function hashOf(request: SendRequest): Uint8Array {
  const { data, ...content } = request.content ?? create(ContentSchema);
  const { waitForDecision: _, ...rest } = request;
  const body: SendRequest = { ...rest, idempotencyKey: "", content };
  const hash = createHash("sha256").update(toBinary(SendRequestSchema, body));
  if (data !== undefined) hash.update("\0").update(canonical(data));
  return hash.digest();
}

function canonical(value: unknown): string {
  return JSON.stringify(value, (_, inner: unknown) =>
    typeof inner === "object" && inner !== null && !Array.isArray(inner)
      ? Object.fromEntries(Object.entries(inner).sort(([a], [b]) => (a < b ? -1 : 1)))
      : inner,
  );
}
