import { timestampDate, timestampFromDate } from "@bufbuild/protobuf/wkt";
import { Status, VerdictKind } from "#gen/posthorn/v1/notification_pb.ts";
import type { SendResponse } from "#gen/posthorn/v1/send_service_pb.ts";
import type { Store } from "#src/store/store.ts";
import { latestDecision, toTimeline } from "./notification.ts";
import { waitForDecisions } from "./wait.ts";

/** Adds what was decided within the wait to the answer of a Send. */
export async function withDecisions(
  store: Store,
  call: { tenantId: string; signal: AbortSignal },
  response: SendResponse,
  ms: number,
): Promise<SendResponse> {
  const ids = response.results.map((result) => result.notificationId);
  const decided = await waitForDecisions(store, call.tenantId, ids, ms, call.signal);
  for (const result of response.results) {
    const found = decided.get(result.notificationId);
    if (found === undefined) continue;
    const { verdicts, rateLimit } = latestDecision(toTimeline(found.row, found.timeline));
    const { status, dueAt, deliveredAt } = found.row;
    result.status = status as Status;
    result.queued = WAITING.has(status);
    result.verdicts = verdicts;
    const limited = status === Status.HELD || status === Status.BATCHED;
    if (limited && rateLimit !== undefined) result.rateLimit = rateLimit;
    const batch = status === Status.BATCHED ? verdicts.find(({ kind }) => kind === VerdictKind.BATCH) : undefined;
    if (batch !== undefined) result.batchId = batch.batchId;
    const estimate = deliveredAt ?? dueAt ?? (batch?.until && timestampDate(batch.until));
    if (estimate) result.estimatedDeliveryTime = timestampFromDate(estimate);
  }
  return response;
}

const WAITING = new Set<number>([Status.ACCEPTED, Status.SCHEDULED, Status.HELD, Status.BATCHED]);
