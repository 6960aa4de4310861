import { create, type MessageInitShape, toBinary } from "@bufbuild/protobuf";
import { durationFromMs, timestampFromDate } from "@bufbuild/protobuf/wkt";
import { ErrorReason } from "#gen/posthorn/v1/error_pb.ts";
import { type Reconnect_Cause, Reset_Cause, SubscribeResponseSchema } from "#gen/posthorn/v1/stream_service_pb.ts";
import { Fault } from "#src/errors.ts";
import { type Head, type InboxEntryRow, toCounts } from "#src/inbox/entry.ts";
import { Encoded } from "#src/rpc/call.ts";
import { encodeReplayed } from "./arrival.ts";
import { type Cursor, encodeCursor } from "./cursor.ts";
import type { Filtered } from "./filter.ts";
import { outQueue } from "./out-queue.ts";

// One stream of one user.
//
//     opening ──▶ reading ──▶ live ──▶ ended
//                    ▲          │ a sequence is missing, the reader is behind,
//                    └──────────┘ or the inbox may have been erased
//
// Live arrivals are attached before the inbox's head is read. While the inbox is read they wait in `ahead`, as far as
// there is room; what found none is read from the inbox as well, and so is everything while the reader is behind. What is
// emitted is strictly in sequence, whatever order processes publish in and whatever is lost or doubled on the way.

/** Resuming further back than this would be a list, not a replay. */
export const MAX_REPLAY = 1000;
const PAGE = 200;
/** How long a missing sequence may be on its way before the inbox is read for it. */
const OUT_OF_ORDER_MS = 20;

export type SessionOptions = {
  streamId: string;
  deviceId: string;
  cursor: Cursor | undefined;
  passes: (event: Filtered) => boolean;
  includeStatus: boolean;
  heartbeatMs: number;
  queueMaxMessages: number;
  queueMaxBytes: number;
  closeAt: Date;
};

export type SessionDeps = {
  now: () => Date;
  random: () => number;
  /** Entries after a sequence, oldest first, and the epoch of the inbox they were read from. */
  replay(afterSeq: number, limit: number): Promise<{ epoch: number | undefined; rows: InboxEntryRow[] }>;
  /** The inbox as it stands. */
  head(): Promise<Head | undefined>;
  /** Nothing more is sent but what waits already. */
  onEnd(fault: Fault | undefined): void;
  onSlow(): void;
  onReplayed(count: number): void;
  onReset(): void;
};

type Event = NonNullable<MessageInitShape<typeof SubscribeResponseSchema>["event"]>;

export type Session = ReturnType<typeof openSession>;

export function openSession(options: SessionOptions, deps: SessionDeps) {
  const queue = outQueue(options.queueMaxMessages, options.queueMaxBytes);
  /** What came before Hello, which is first of all. */
  let early: Encoded[] | undefined = [];
  /** The newest arrival of each epoch that came while opening. */
  const earlyArrivals = new Map<number, number>();
  /** Undefined until the user has an inbox. */
  let epoch: number | undefined;
  /** Everything up to here has been queued for the reader. */
  let lastSeq = 0;
  /** The newest arrival heard of. */
  let wanted = 0;
  let reading = true;
  /** The inbox may have been erased: nothing is sent before its head has been read again. */
  let doubt = false;
  const ahead = new Map<number, { message: Encoded; passes: boolean }>();
  let gapTimer: NodeJS.Timeout | undefined;
  /** How much the reader had taken, and since when that has not changed. */
  let progress = { taken: 0, since: deps.now().getTime() };

  const cursor = () => encodeCursor({ epoch: epoch ?? 0, seq: lastSeq });

  function put(message: Encoded): void {
    if (early !== undefined) {
      message.keep();
      early.push(message);
    }
    if (early === undefined ? !queue.push(message) : early.length > options.queueMaxMessages) tooSlow();
  }

  function tooSlow(): void {
    if (queue.ended) return;
    deps.onSlow();
    finish(
      new Fault(ErrorReason.OVERLOADED, { message: "The stream is read too slowly. Resume with the last cursor." }),
    );
  }

  function tell(event: Event): void {
    put(new Encoded(toBinary(SubscribeResponseSchema, create(SubscribeResponseSchema, { event }))));
  }

  function finish(fault: Fault | undefined): void {
    if (queue.ended) return;
    queue.end(fault);
    clearTimeout(gapTimer);
    deps.onEnd(fault);
  }

  /** Says hello and sends what was missed. `head` was read after this session was attached to live events. */
  async function begin(head: Head | undefined): Promise<void> {
    const waiting = early ?? [];
    early = undefined;
    tell({
      case: "hello",
      value: {
        streamId: options.streamId,
        deviceId: options.deviceId,
        serverTime: timestampFromDate(deps.now()),
        heartbeatInterval: durationFromMs(options.heartbeatMs),
        headSequence: BigInt(head?.seq ?? 0),
        closeTime: timestampFromDate(options.closeAt),
      },
    });
    const from = options.cursor;
    const cause = from === undefined ? undefined : whyReset(from, head);
    epoch = head?.epoch;
    lastSeq = from === undefined || cause !== undefined ? (head?.seq ?? 0) : from.seq;
    if (cause !== undefined) reset(cause, head);
    for (const message of waiting) put(message);
    for (const [itsEpoch, seq] of earlyArrivals) {
      if (itsEpoch === epoch) wanted = Math.max(wanted, seq);
      else doubt = true;
    }
    await readTo(head?.seq ?? 0);
    tell({ case: "caughtUp", value: { cursor: cursor(), counts: toCounts(head) } });
    await read(() => Promise.resolve());
  }

  /** Everything that reads the inbox after the beginning: one at a time, and afterwards live again. */
  async function read(work: () => Promise<void>): Promise<void> {
    reading = true;
    clearTimeout(gapTimer);
    gapTimer = undefined;
    try {
      await work();
      while (doubt && !queue.ended) await lookAgain();
      // Were many released at once, they could fill the queue of a reader who is quick.
      while (ahead.size > options.queueMaxMessages / 4 && !doubt && !queue.ended) {
        await queue.room();
        await readTo(wanted);
        forgetAhead();
      }
      reading = false;
      release();
    } catch {
      // The next heartbeat tries again.
      reading = false;
    }
  }

  /** Reads and sends everything up to `target`, waiting for the reader where it is slower. */
  async function readTo(target: number): Promise<void> {
    while (lastSeq < target && !doubt && !queue.ended) {
      const page = await deps.replay(lastSeq, PAGE);
      if (page.epoch !== epoch) {
        doubt = true;
        return;
      }
      for (const row of page.rows) {
        await queue.room();
        lastSeq = row.seq;
        if (options.passes({ ...row, tags: row.tags ?? [] })) put(new Encoded(encodeReplayed(row, page.epoch ?? 0)));
      }
      deps.onReplayed(page.rows.length);
      // What is not there was deleted or has expired.
      if (page.rows.length < PAGE) lastSeq = Math.max(lastSeq, target);
    }
  }

  /** Goes by the inbox's head, which is newer than the events that raised the doubt. */
  async function lookAgain(): Promise<void> {
    doubt = false;
    const head = await deps.head().catch((error: unknown) => {
      doubt = true;
      throw error;
    });
    if (head === undefined || head.epoch !== epoch) {
      ahead.clear();
      wanted = 0;
    }
    if (head === undefined) return;
    if (head.epoch !== epoch) {
      const began = epoch === undefined;
      epoch = head.epoch;
      lastSeq = began ? 0 : head.seq;
      if (!began) reset(Reset_Cause.NEW_EPOCH, head);
    }
    await readTo(head.seq);
  }

  function reset(cause: Reset_Cause, head: Head | undefined): void {
    deps.onReset();
    tell({ case: "reset", value: { cause, cursor: cursor(), counts: toCounts(head) } });
  }

  function arrived(seq: number, itsEpoch: number, event: Filtered, message: Encoded): void {
    if (queue.ended) return;
    if (early !== undefined) {
      earlyArrivals.set(itsEpoch, Math.max(seq, earlyArrivals.get(itsEpoch) ?? 0));
      return;
    }
    // The first that ever arrives tells of its inbox itself; that spares a read for every new user.
    if (epoch === undefined && seq === 1 && !reading) epoch = itsEpoch;
    if (itsEpoch !== epoch) {
      doubt = true;
      if (!reading) void read(() => Promise.resolve());
      return;
    }
    if (seq <= lastSeq) return;
    wanted = Math.max(wanted, seq);
    // As it nearly always is: the next one, with nothing in its way.
    if (seq === lastSeq + 1 && !reading && ahead.size === 0 && queue.hasRoom()) {
      lastSeq = seq;
      if (options.passes(event)) put(message);
      if (gapTimer !== undefined || wanted > seq) release();
      return;
    }
    if (ahead.size < options.queueMaxMessages) {
      message.keep();
      ahead.set(seq, { message, passes: options.passes(event) });
    }
    if (!reading) release();
  }

  /** Sends what is next in sequence; if something is missing, gives it a moment and then reads the inbox. */
  function release(): void {
    for (let next = ahead.get(lastSeq + 1); next !== undefined; next = ahead.get(lastSeq + 1)) {
      // A burst for a reader who is quick, but not as quick as that: read it from the inbox as they take it.
      if (!queue.hasRoom()) {
        void read(() => readTo(wanted));
        return;
      }
      lastSeq++;
      ahead.delete(lastSeq);
      if (next.passes) put(next.message);
    }
    forgetAhead();
    if (wanted > lastSeq) gapTimer ??= setTimeout(() => void read(() => readTo(wanted)), OUT_OF_ORDER_MS);
    else {
      clearTimeout(gapTimer);
      gapTimer = undefined;
    }
  }

  function forgetAhead(): void {
    for (const seq of ahead.keys()) if (seq <= lastSeq) ahead.delete(seq);
  }

  /** Also closes the stream of a reader who has taken nothing of what waits for the time between two heartbeats. */
  function heartbeat(head: Head | undefined): void {
    const now = deps.now().getTime();
    if (queue.length === 0 || queue.taken !== progress.taken) progress = { taken: queue.taken, since: now };
    else if (now - progress.since >= options.heartbeatMs) tooSlow();
    if (queue.ended || early !== undefined || reading) return;
    if (head !== undefined && head.epoch !== epoch) doubt = true;
    if (doubt) {
      void read(() => Promise.resolve());
      return;
    }
    if (head !== undefined && head.seq > lastSeq) void read(() => readTo(head.seq));
    // To a reader that has not taken what there is, a heartbeat says nothing.
    if (queue.length > 0) return;
    tell({
      case: "heartbeat",
      value: {
        cursor: cursor(),
        headSequence: BigInt(head?.seq ?? lastSeq),
        ...(head === undefined ? {} : { counts: toCounts(head) }),
      },
    });
  }

  function reconnect(cause: Reconnect_Cause, withinMs: number): void {
    // Not open yet, it has no cursor to give: the client opens another with the one it has.
    if (early !== undefined) {
      finish(new Fault(ErrorReason.SHUTTING_DOWN));
      return;
    }
    tell({
      case: "reconnect",
      value: { after: durationFromMs(Math.round(deps.random() * withinMs)), cause, cursor: cursor() },
    });
    finish(undefined);
  }

  async function leave(): Promise<IteratorReturnResult<undefined>> {
    finish(undefined);
    return { done: true, value: undefined };
  }

  return {
    options,
    /** The reader's side: ends with the fault, or quietly after Reconnect. */
    events: { [Symbol.asyncIterator]: () => ({ take: queue.take, next: queue.next, return: leave }) },
    begin,
    arrived,
    heartbeat,
    reconnect,
    finish,
    /** Writes an encoded SubscribeResponse. */
    put,
    status: (message: Encoded) => (options.includeStatus ? put(message) : undefined),
    announcement: (event: Filtered, message: Encoded) => (options.passes(event) ? put(message) : undefined),
    tokenExpires: (at: Date) => tell({ case: "tokenExpiring", value: { expireTime: timestampFromDate(at) } }),
  };
}

/** Why a cursor cannot be continued; undefined when it can. */
export function whyReset(from: Cursor, head: Head | undefined): Reset_Cause | undefined {
  // The cursor of a user to whom nothing had arrived fits whatever inbox began since.
  const fresh = from.epoch === 0 && from.seq === 0;
  if (fresh && head === undefined) return undefined;
  if (head === undefined || (!fresh && (from.epoch !== head.epoch || from.seq > head.seq)))
    return Reset_Cause.NEW_EPOCH;
  if (from.seq < head.trimmedSeq) return Reset_Cause.TRIMMED;
  return head.seq - from.seq > MAX_REPLAY ? Reset_Cause.TOO_FAR_BEHIND : undefined;
}
