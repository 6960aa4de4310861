import type { SendRequest } from "#gen/posthorn/v1/send_service_pb.ts";
import type { Tx } from "#src/store/store.ts";
import { recordedTrace } from "#src/telemetry/work-spans.ts";
import { type AcceptDeps, DEFAULT_TYPE, fansOut, queueStored } from "./accept.ts";
import { commitGroup, type Stored } from "./commit.ts";
import { draftOf } from "./prepare.ts";
import { rowsOf, type Submission } from "./submission.ts";

/**
 * A Send that nobody calls for: a schedule's. It is stored in a transaction of whoever has it sent, together with the note
 * that it was, so it needs no idempotency key: both are committed or neither, whatever is killed.
 */
export type SendByItself = {
  submission: Submission;
  store(tx: Tx, slot: number): Promise<Stored[]>;
  /** After the commit. */
  queue(stored: readonly Stored[]): Promise<void>;
};

/**
 * `tag` is added to those of the request; recipients for whom the asked-for time was before `skipBefore` get nothing.
 * "nothing" when there is nothing to send: the type is gone, or nobody is left to send to. "before" when the time of all
 * who are named was before `notBefore`: it was never theirs.
 */
export async function sendByItself(
  deps: AcceptDeps,
  tenantId: string,
  asked: SendRequest,
  { tag, skipBefore, notBefore, now }: { tag: string; skipBefore: Date; notBefore: Date; now: Date },
): Promise<SendByItself | "nothing" | "before"> {
  const request: SendRequest = { ...asked, tags: [...asked.tags, tag] };
  const type = await deps.findType(tenantId, request.type || DEFAULT_TYPE);
  if (type === undefined) return "nothing";
  const draft = draftOf(request, type, now, deps.dedupWindowMs);
  const userIds = [...new Set(request.to?.userIds)];
  const zones = draft.local && userIds.length > 0 ? await deps.zonesOf(tenantId, userIds) : undefined;
  const zoneOf = (userId: string) => zones?.get(userId) ?? "UTC";
  const submission: Submission = {
    draft,
    rows: rowsOf(draft, userIds, { newId: deps.newId, zoneOf, skipBefore }),
    skipBefore,
    fanout: fansOut(request) ? { id: deps.newId(), request, skipBefore } : undefined,
    idempotency: undefined,
    actor: "posthorn",
    bypass: undefined,
    submittedAt: performance.now(),
    trace: recordedTrace(),
  };
  if (submission.rows.length === 0 && submission.fanout === undefined) {
    const asked = userIds.map((userId) => draft.asked(zoneOf(userId)));
    return asked.length > 0 && asked.every((time) => time !== undefined && time < notBefore) ? "before" : "nothing";
  }
  return {
    submission,
    store: (tx, slot) => commitGroup(tx, tenantId, [submission], { now, slot, idempotencyTtlMs: 0 }),
    queue: (stored) => queueStored(deps.queue, tenantId, [submission], stored, (trace) => trace),
  };
}
