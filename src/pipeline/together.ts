import type { SpanContext } from "@opentelemetry/api";
import type { JsMsg } from "nats";
import { readTraces, type TracedItems } from "#src/telemetry/message-traces.ts";
import { CHUNK, decodeWork, type Work } from "./flow.ts";

/** A message that waits for its turn. */
export type Waiting = {
  readonly message: Pick<JsMsg, "headers" | "ack" | "nak" | "working" | "info" | "subject">;
  /** Undefined: it cannot be read. */
  readonly work: Work | undefined;
};

/** Messages that are handled as one. */
export type Together = { readonly waiting: readonly Waiting[]; readonly work: Work | undefined };

export function readWaiting(message: JsMsg): Waiting {
  try {
    return { message, work: decodeWork(message.data) };
  } catch {
    return { message, work: undefined };
  }
}

/**
 * Takes the first message, and with it those behind it that go on with the same tenant's ids, up to `most` in all: where
 * callers send one by one, each commit queues a few ids, and to decide 250 costs little more than to decide ten. What has
 * failed before is taken alone, so that it cannot make others fail with it.
 */
export function takeTogether(queue: Waiting[], most = CHUNK): Together {
  const [first] = queue;
  if (first === undefined) return { waiting: [], work: undefined };
  const { work } = first;
  if (work === undefined || !mayJoin(first)) return { waiting: queue.splice(0, 1), work };
  const ids: string[] = [];
  let count = 0;
  for (const next of queue) {
    if (!mayJoin(next) || next.work.tenantId !== work.tenantId) break;
    if (count > 0 && ids.length + next.work.ids.length > most) break;
    ids.push(...next.work.ids);
    count++;
  }
  return { waiting: queue.splice(0, count), work: { tenantId: work.tenantId, ids } };
}

/** What may go together: the first, and those of the same tenant right behind it. */
export function firstTogether(queue: readonly Waiting[]): readonly Waiting[] {
  const [first] = queue;
  const others = queue.findIndex(({ work }) => work?.tenantId !== first?.work?.tenantId);
  return others === -1 ? queue : queue.slice(0, others);
}

/**
 * So many ids wait behind those that were taken: of the messages that are here, and, at as many for each as these had, of
 * those that the queue told of when it gave out the last.
 */
export function backlogOf(queue: readonly Waiting[], { waiting, work }: Together): number {
  const here = queue.reduce(
    (sum, next) => sum + (next.work !== undefined && "ids" in next.work ? next.work.ids.length : 0),
    0,
  );
  const last = queue.at(-1) ?? waiting.at(-1);
  const each = work !== undefined && "ids" in work ? work.ids.length / waiting.length : 1;
  return here + Math.round((last?.message.info.pending ?? 0) * each);
}

/**
 * The work in parts of as many ids as `size` says each time it is asked, which it is before each part, with how many are
 * left: what has become too much for one go since it was queued is handled in several.
 */
export function* inParts(work: Work, size: () => number): Generator<{ part: Work; rest: number }> {
  if (!("ids" in work)) {
    yield { part: work, rest: 0 };
    return;
  }
  const { tenantId, ids } = work;
  for (let start = 0; start < ids.length; ) {
    const end = start + size();
    const part = start === 0 && end >= ids.length ? work : { tenantId, ids: ids.slice(start, end) };
    yield { part, rest: Math.max(0, ids.length - end) };
    start = end;
  }
}

function mayJoin(waiting: Waiting): waiting is Waiting & { work: { tenantId: string; ids: string[] } } {
  return waiting.work !== undefined && "ids" in waiting.work && waiting.message.info.deliveryCount === 1;
}

/** The traces of the ids, by their positions among all that are taken together. */
export function tracesTogether({ waiting }: Together): TracedItems {
  const traced: TracedItems = new Map<SpanContext, number[]>();
  let before = 0;
  for (const { message, work } of waiting) {
    const size = work !== undefined && "ids" in work ? work.ids.length : 0;
    for (const [from, positions] of readTraces(message.headers, size)) {
      traced.set(
        from,
        positions.map((position) => before + position),
      );
    }
    before += size;
  }
  return traced;
}
