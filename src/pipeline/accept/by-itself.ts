import type { SendRequest } from "#gen/posthorn/v1/send_service_pb.ts";
import type { NewId } from "#src/ids.ts";
import { recordedTrace } from "#src/telemetry/work-spans.ts";
import { hasSunset } from "#src/types/deprecation.ts";
import { fansOut } from "./accept.ts";
import { draftOf, type TypeDefaults } from "./prepare.ts";
import { type Recipients, rowsOf, type Submission, zoneIn } from "./submission.ts";

export type ByItself = {
  /** Added to those of the request. */
  tag: string;
  /** Recipients for whom the asked-for time was before get nothing. */
  skipBefore: Date;
  /** When it was nobody's yet. */
  notBefore: Date;
  /** When it was to be sent. */
  dueAt: Date;
  now: Date;
  newId: NewId;
  dedupWindowMs: number;
  known: Recipients;
};

/**
 * A Send that nobody calls for: a schedule's. It is stored in a transaction of whoever has it sent, together with the note
 * that it was, so it needs no idempotency key: both are committed or neither, whatever is killed.
 *
 * "nothing" when there is nothing to send: the type is gone or had its sunset, or nobody is left to send to. "before" when the time of all
 * who are named was before `notBefore`: it was never theirs. Throws what `prepare` throws.
 */
export function submissionByItself(
  asked: SendRequest,
  type: TypeDefaults | undefined,
  { tag, skipBefore, notBefore, dueAt, now, newId, dedupWindowMs, known }: ByItself,
): Submission | "nothing" | "before" {
  if (type === undefined || hasSunset(type, dueAt)) return "nothing";
  const request: SendRequest = { ...asked, tags: [...asked.tags, tag] };
  const draft = draftOf(request, type, now, dedupWindowMs);
  const userIds = [...new Set(request.to?.userIds)];
  const rows = rowsOf(draft, userIds, { newId, known, skipBefore });
  if (rows.length === 0 && !fansOut(request)) {
    const asked = userIds.map((userId) => draft.asked(zoneIn(known, userId)));
    return asked.length > 0 && asked.every((time) => time !== undefined && time < notBefore) ? "before" : "nothing";
  }
  return {
    draft,
    rows,
    skipBefore,
    fanout: fansOut(request) ? { id: newId(), request, skipBefore } : undefined,
    idempotency: undefined,
    actor: "posthorn",
    bypass: undefined,
    submittedAt: performance.now(),
    trace: recordedTrace(),
  };
}
