import { create, type MessageInitShape, toBinary } from "@bufbuild/protobuf";
import { durationFromMs, timestampFromDate } from "@bufbuild/protobuf/wkt";
import { ErrorReason } from "#gen/posthorn/v1/error_pb.ts";
import { type Reconnect_Cause, Reset_Cause, SubscribeResponseSchema } from "#gen/posthorn/v1/stream_service_pb.ts";
import { Fault } from "#src/errors.ts";
import { type Head, toCounts } from "#src/inbox/entry.ts";
import { Encoded, type EncodedStream } from "#src/rpc/call.ts";
import { encodeReplayed } from "./arrival.ts";
import { type Cursor, encodeCursor } from "./cursor.ts";
import type { Filtered } from "./filter.ts";
import { OutQueue, Reader } from "./out-queue.ts";
import type { Replayed } from "./replays.ts";
import { whyReset } from "./reset.ts";

// One stream of one user.
//
//     opening ──▶ reading ──▶ live ──▶ ended
//                    ▲          │ a sequence is missing, the reader is behind,
//                    └──────────┘ or the inbox may have been erased
//
// Live arrivals are attached before the inbox's head is read. While the inbox is read they wait in `#ahead`, as far as
// there is room; what found none is read from the inbox as well, and so is everything while the reader is behind. What is
// emitted is strictly in sequence, whatever order processes publish in and whatever is lost or doubled on the way.

const PAGE = 200;
/** How long a missing sequence may be on its way before the inbox is read for it. */
const OUT_OF_ORDER_MS = 20;

export type SessionOptions = {
  tenantId: string;
  userId: string;
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

/** One for all sessions of a process. */
export type SessionDeps = {
  now: () => Date;
  random: () => number;
  /** What came after the sequence, at most so many entries. */
  replay(session: Session, afterSeq: number, most: number): Promise<Replayed>;
  /** The inbox as it stands. */
  head(session: Session): Promise<Head | undefined>;
  /** Nothing more is sent but what waits already. */
  onEnd(session: Session, fault: Fault | undefined): void;
  onSlow(): void;
  onReplayed(count: number): void;
  onReset(): void;
};

type Event = NonNullable<MessageInitShape<typeof SubscribeResponseSchema>["event"]>;

/** A class and not closures: ten thousand of them are open at a time. */
export class Session {
  readonly options: SessionOptions;
  readonly #deps: SessionDeps;
  readonly #queue: OutQueue;
  /** What came before Hello, which is first of all. */
  #early: Encoded[] | undefined = [];
  /** The newest arrival of each epoch that came while opening. */
  #earlyArrivals: Map<number, number> | undefined;
  /** Undefined until the user has an inbox. */
  #epoch: number | undefined;
  /** Everything up to here has been queued for the reader. */
  #lastSeq = 0;
  /** The newest arrival heard of. */
  #wanted = 0;
  #reading = true;
  /** The inbox may have been erased: nothing is sent before its head has been read again. */
  #doubt = false;
  /** What came too early, by sequence; undefined when there is none. */
  #ahead: Map<number, { message: Encoded; passes: boolean }> | undefined;
  #gapTimer: NodeJS.Timeout | undefined;
  /** How much the reader had taken, and since when that has not changed. */
  #taken = 0;
  #takenSince: number;

  constructor(options: SessionOptions, deps: SessionDeps) {
    this.options = options;
    this.#deps = deps;
    this.#queue = new OutQueue(options.queueMaxMessages, options.queueMaxBytes);
    this.#takenSince = deps.now().getTime();
  }

  /** The reader's side: ends with the fault, or quietly after Reconnect. */
  get events(): EncodedStream {
    return { [Symbol.asyncIterator]: () => new Reader(this.#queue, this) };
  }

  #cursor(): string {
    return encodeCursor({ epoch: this.#epoch ?? 0, seq: this.#lastSeq });
  }

  /** Writes an encoded SubscribeResponse. */
  put(message: Encoded): void {
    if (this.#early !== undefined) {
      message.keep();
      this.#early.push(message);
      if (this.#early.length > this.options.queueMaxMessages) this.#tooSlow();
    } else if (!this.#queue.push(message)) this.#tooSlow();
  }

  #tooSlow(): void {
    if (this.#queue.ended) return;
    this.#deps.onSlow();
    this.finish(
      new Fault(ErrorReason.OVERLOADED, { message: "The stream is read too slowly. Resume with the last cursor." }),
    );
  }

  #tell(event: Event): void {
    this.put(new Encoded(toBinary(SubscribeResponseSchema, create(SubscribeResponseSchema, { event }))));
  }

  finish(fault: Fault | undefined): void {
    if (this.#queue.ended) return;
    this.#queue.end(fault);
    clearTimeout(this.#gapTimer);
    this.#deps.onEnd(this, fault);
  }

  /** Says hello and sends what was missed. `head` was read after this session was attached to live events. */
  async begin(head: Head | undefined): Promise<void> {
    const waiting = this.#early ?? [];
    this.#early = undefined;
    this.#tell({
      case: "hello",
      value: {
        streamId: this.options.streamId,
        deviceId: this.options.deviceId,
        serverTime: timestampFromDate(this.#deps.now()),
        heartbeatInterval: durationFromMs(this.options.heartbeatMs),
        headSequence: BigInt(head?.seq ?? 0),
        closeTime: timestampFromDate(this.options.closeAt),
      },
    });
    const from = this.options.cursor;
    const cause = from === undefined ? undefined : whyReset(from, head);
    this.#epoch = head?.epoch;
    this.#lastSeq = from === undefined || cause !== undefined ? (head?.seq ?? 0) : from.seq;
    if (cause !== undefined) this.#reset(cause, head);
    for (const message of waiting) this.put(message);
    for (const [itsEpoch, seq] of this.#earlyArrivals ?? []) {
      if (itsEpoch === this.#epoch) this.#wanted = Math.max(this.#wanted, seq);
      else this.#doubt = true;
    }
    this.#earlyArrivals = undefined;
    await this.#readTo(head?.seq ?? 0);
    this.#tell({ case: "caughtUp", value: { cursor: this.#cursor(), counts: toCounts(head) } });
    await this.#read(() => Promise.resolve());
  }

  /** Everything that reads the inbox after the beginning: one at a time, and afterwards live again. */
  async #read(work: () => Promise<void>): Promise<void> {
    this.#reading = true;
    clearTimeout(this.#gapTimer);
    this.#gapTimer = undefined;
    try {
      await work();
      while (this.#doubt && !this.#queue.ended) await this.#lookAgain();
      // Were many released at once, they could fill the queue of a reader who is quick.
      while ((this.#ahead?.size ?? 0) > this.options.queueMaxMessages / 4 && !this.#doubt && !this.#queue.ended) {
        await this.#queue.room();
        await this.#readTo(this.#wanted);
        this.#forgetAhead();
      }
      this.#reading = false;
      this.#release();
    } catch {
      // The next heartbeat tries again.
      this.#reading = false;
    }
  }

  /** Reads and sends everything up to `target`, waiting for the reader where it is slower. */
  async #readTo(target: number): Promise<void> {
    while (this.#lastSeq < target && !this.#doubt && !this.#queue.ended) {
      const most = Math.min(target - this.#lastSeq, PAGE);
      const page = await this.#deps.replay(this, this.#lastSeq, most);
      if (page.epoch !== this.#epoch) {
        this.#doubt = true;
        return;
      }
      for (const row of page.rows) {
        await this.#queue.room();
        this.#lastSeq = row.seq;
        if (this.options.passes({ ...row, tags: row.tags ?? [] }))
          this.put(new Encoded(encodeReplayed(row, page.epoch ?? 0)));
      }
      this.#deps.onReplayed(page.rows.length);
      // What is not there was deleted or has expired.
      if (page.rows.length < most) this.#lastSeq = Math.max(this.#lastSeq, target);
    }
  }

  /** Goes by the inbox's head, which is newer than the events that raised the doubt. */
  async #lookAgain(): Promise<void> {
    this.#doubt = false;
    const head = await this.#deps.head(this).catch((error: unknown) => {
      this.#doubt = true;
      throw error;
    });
    if (head === undefined || head.epoch !== this.#epoch) {
      this.#ahead = undefined;
      this.#wanted = 0;
    }
    if (head === undefined) return;
    if (head.epoch !== this.#epoch) {
      const began = this.#epoch === undefined;
      this.#epoch = head.epoch;
      this.#lastSeq = began ? 0 : head.seq;
      if (!began) this.#reset(Reset_Cause.NEW_EPOCH, head);
    }
    await this.#readTo(head.seq);
  }

  #reset(cause: Reset_Cause, head: Head | undefined): void {
    this.#deps.onReset();
    this.#tell({ case: "reset", value: { cause, cursor: this.#cursor(), counts: toCounts(head) } });
  }

  arrived(seq: number, itsEpoch: number, event: Filtered, message: Encoded): void {
    if (this.#queue.ended) return;
    if (this.#early !== undefined) {
      this.#earlyArrivals ??= new Map();
      this.#earlyArrivals.set(itsEpoch, Math.max(seq, this.#earlyArrivals.get(itsEpoch) ?? 0));
      return;
    }
    // The first that ever arrives tells of its inbox itself; that spares a read for every new user.
    if (this.#epoch === undefined && seq === 1 && !this.#reading) this.#epoch = itsEpoch;
    if (itsEpoch !== this.#epoch) {
      this.#doubt = true;
      if (!this.#reading) void this.#read(() => Promise.resolve());
      return;
    }
    if (seq <= this.#lastSeq) return;
    this.#wanted = Math.max(this.#wanted, seq);
    // As it nearly always is: the next one, with nothing in its way.
    if (seq === this.#lastSeq + 1 && !this.#reading && this.#ahead === undefined && this.#queue.hasRoom()) {
      this.#lastSeq = seq;
      if (this.options.passes(event)) this.put(message);
      if (this.#gapTimer !== undefined || this.#wanted > seq) this.#release();
      return;
    }
    this.#ahead ??= new Map();
    if (this.#ahead.size < this.options.queueMaxMessages) {
      message.keep();
      this.#ahead.set(seq, { message, passes: this.options.passes(event) });
    }
    if (!this.#reading) this.#release();
  }

  /** Sends what is next in sequence; if something is missing, gives it a moment and then reads the inbox. */
  #release(): void {
    for (;;) {
      const next = this.#ahead?.get(this.#lastSeq + 1);
      if (next === undefined) break;
      // A burst for a reader who is quick, but not as quick as that: read it from the inbox as they take it.
      if (!this.#queue.hasRoom()) {
        void this.#read(() => this.#readTo(this.#wanted));
        return;
      }
      this.#lastSeq++;
      this.#ahead?.delete(this.#lastSeq);
      if (next.passes) this.put(next.message);
    }
    this.#forgetAhead();
    if (this.#wanted > this.#lastSeq)
      this.#gapTimer ??= setTimeout(() => void this.#read(() => this.#readTo(this.#wanted)), OUT_OF_ORDER_MS);
    else {
      clearTimeout(this.#gapTimer);
      this.#gapTimer = undefined;
    }
  }

  #forgetAhead(): void {
    if (this.#ahead === undefined) return;
    for (const seq of this.#ahead.keys()) if (seq <= this.#lastSeq) this.#ahead.delete(seq);
    if (this.#ahead.size === 0) this.#ahead = undefined;
  }

  /** Also closes the stream of a reader who has taken nothing of what waits for the time between two heartbeats. */
  heartbeat(head: Head | undefined): void {
    const now = this.#deps.now().getTime();
    if (this.#queue.length === 0 || this.#queue.taken !== this.#taken) {
      this.#taken = this.#queue.taken;
      this.#takenSince = now;
    } else if (now - this.#takenSince >= this.options.heartbeatMs) this.#tooSlow();
    if (this.#queue.ended || this.#early !== undefined || this.#reading) return;
    if (head !== undefined && head.epoch !== this.#epoch) this.#doubt = true;
    if (this.#doubt) {
      void this.#read(() => Promise.resolve());
      return;
    }
    if (head !== undefined && head.seq > this.#lastSeq) void this.#read(() => this.#readTo(head.seq));
    // To a reader that has not taken what there is, a heartbeat says nothing.
    if (this.#queue.length > 0) return;
    this.#tell({
      case: "heartbeat",
      value: {
        cursor: this.#cursor(),
        headSequence: BigInt(head?.seq ?? this.#lastSeq),
        ...(head === undefined ? {} : { counts: toCounts(head) }),
      },
    });
  }

  reconnect(cause: Reconnect_Cause, withinMs: number): void {
    // Not open yet, it has no cursor to give: the client opens another with the one it has.
    if (this.#early !== undefined) {
      this.finish(new Fault(ErrorReason.SHUTTING_DOWN));
      return;
    }
    this.#tell({
      case: "reconnect",
      value: { after: durationFromMs(Math.round(this.#deps.random() * withinMs)), cause, cursor: this.#cursor() },
    });
    this.finish(undefined);
  }

  status(message: Encoded): void {
    if (this.options.includeStatus) this.put(message);
  }

  announcement(event: Filtered, message: Encoded): void {
    if (this.options.passes(event)) this.put(message);
  }

  tokenExpires(at: Date): void {
    this.#tell({ case: "tokenExpiring", value: { expireTime: timestampFromDate(at) } });
  }
}
