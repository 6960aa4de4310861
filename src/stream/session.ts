import { create, type MessageInitShape, toBinary } from "@bufbuild/protobuf";
import { durationFromMs, timestampFromDate } from "@bufbuild/protobuf/wkt";
import { ErrorReason } from "#gen/posthorn/v1/error_pb.ts";
import { type Reconnect_Cause, Reset_Cause, SubscribeResponseSchema } from "#gen/posthorn/v1/stream_service_pb.ts";
import { Fault } from "#src/errors.ts";
import { type Head, type InboxEntryRow, toCounts } from "#src/inbox/entry.ts";
import { Encoded } from "#src/rpc/call.ts";
import { type Cursor, encodeCursor } from "./cursor.ts";
import type { Filtered } from "./filter.ts";
import { encodeArrival } from "./live.ts";

// One stream of one user.
//
//     opening ──▶ replaying ──▶ live ──▶ ended
//                     ▲          │ a sequence is missing
//                     └──────────┘
//
// Live arrivals are attached before the inbox's head is read; while replaying they wait in `ahead`. What is emitted is
// strictly in sequence, whatever order processes publish in.

/** Resuming further back than this would be a list, not a replay. */
export const MAX_REPLAY = 1000;
const REPLAY_PAGE = 200;
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
  /** Entries after a sequence, oldest first. */
  replay(afterSeq: number, limit: number): Promise<InboxEntryRow[]>;
  onSlow(): void;
  onReplayed(count: number): void;
  onReset(): void;
};

type Event = NonNullable<MessageInitShape<typeof SubscribeResponseSchema>["event"]>;
type Ahead = { bytes: Uint8Array; passes: boolean };

export type Session = ReturnType<typeof openSession>;

export function openSession(options: SessionOptions, deps: SessionDeps) {
  const queue: Uint8Array[] = [];
  let queuedBytes = 0;
  let wake: (() => void) | undefined;
  let roomy: (() => void) | undefined;
  let end: { fault: Fault | undefined } | undefined;
  /** Undefined until the user has an inbox. */
  let epoch: number | undefined;
  let lastSeq = 0;
  let replaying = true;
  const ahead = new Map<number, Ahead>();
  let gapTimer: NodeJS.Timeout | undefined;

  const cursor = () => encodeCursor({ epoch: epoch ?? 0, seq: lastSeq });
  const full = () => queue.length >= options.queueMaxMessages || queuedBytes >= options.queueMaxBytes;

  function put(bytes: Uint8Array): void {
    if (end !== undefined) return;
    if (full()) {
      deps.onSlow();
      finish(
        new Fault(ErrorReason.OVERLOADED, { message: "The stream is read too slowly. Resume with the last cursor." }),
      );
      return;
    }
    queue.push(bytes);
    queuedBytes += bytes.length;
    wake?.();
  }

  function tell(event: Event): void {
    put(toBinary(SubscribeResponseSchema, create(SubscribeResponseSchema, { event })));
  }

  function finish(fault: Fault | undefined): void {
    if (end !== undefined) return;
    end = { fault };
    clearTimeout(gapTimer);
    wake?.();
    roomy?.();
  }

  /** The reader's side: ends with the fault, or quietly after Reconnect. */
  async function* events(): AsyncGenerator<Encoded> {
    for (;;) {
      const bytes = queue.shift();
      if (bytes !== undefined) {
        queuedBytes -= bytes.length;
        if (queue.length < options.queueMaxMessages / 2) roomy?.();
        yield new Encoded(bytes);
      } else if (end !== undefined) {
        if (end.fault !== undefined) throw end.fault;
        return;
      } else {
        await new Promise<void>((resolve) => {
          wake = resolve;
        });
        wake = undefined;
      }
    }
  }

  /** Says hello and sends what was missed. `head` was read after this session was attached to live events. */
  async function begin(head: Head | undefined): Promise<void> {
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
    if (cause !== undefined) {
      deps.onReset();
      tell({ case: "reset", value: { cause, cursor: cursor(), counts: toCounts(head) } });
    }
    await replayTo(head?.seq ?? 0);
    tell({ case: "caughtUp", value: { cursor: cursor(), counts: toCounts(head) } });
    replaying = false;
    release();
  }

  /** Reads and sends everything up to `target`, waiting for the reader where it is slower. */
  async function replayTo(target: number): Promise<void> {
    replaying = true;
    while (lastSeq < target && end === undefined) {
      const rows = await deps.replay(lastSeq, REPLAY_PAGE);
      for (const row of rows) {
        while (queue.length >= options.queueMaxMessages / 2 && end === undefined) {
          await new Promise<void>((resolve) => {
            roomy = resolve;
          });
          roomy = undefined;
        }
        lastSeq = Math.max(lastSeq, row.seq);
        if (options.passes({ ...row, tags: row.tags ?? [] })) put(encodeReplayed(row, epoch ?? 0));
      }
      deps.onReplayed(rows.length);
      // What is not there was deleted or has expired.
      if (rows.length < REPLAY_PAGE) lastSeq = Math.max(lastSeq, target);
    }
  }

  function arrived(seq: number, itsEpoch: number, event: Filtered, bytes: Uint8Array): void {
    if (end !== undefined) return;
    if (itsEpoch !== epoch && !replaying) renew(itsEpoch);
    if (seq <= lastSeq && !replaying) return;
    // Beyond this many the inbox is read for them instead.
    if (ahead.size < options.queueMaxMessages) ahead.set(seq, { bytes, passes: options.passes(event) });
    if (!replaying) release();
  }

  /** Sends what is next in sequence; if something is missing, gives it a moment and then reads the inbox. */
  function release(): void {
    for (let next = ahead.get(lastSeq + 1); next !== undefined; next = ahead.get(lastSeq + 1)) {
      lastSeq++;
      ahead.delete(lastSeq);
      if (next.passes) put(next.bytes);
    }
    for (const seq of ahead.keys()) if (seq <= lastSeq) ahead.delete(seq);
    if (ahead.size === 0) {
      clearTimeout(gapTimer);
      gapTimer = undefined;
    } else gapTimer ??= setTimeout(() => void fill(Math.max(...ahead.keys())), OUT_OF_ORDER_MS);
  }

  async function fill(target: number): Promise<void> {
    gapTimer = undefined;
    if (replaying || end !== undefined) return;
    try {
      await replayTo(target);
      replaying = false;
      release();
    } catch {
      // The next heartbeat tries again.
      replaying = false;
    }
  }

  /** The inbox was erased, or begins with this arrival. */
  function renew(itsEpoch: number): void {
    const began = epoch === undefined;
    epoch = itsEpoch;
    lastSeq = 0;
    ahead.clear();
    if (began) return;
    deps.onReset();
    tell({ case: "reset", value: { cause: Reset_Cause.NEW_EPOCH, cursor: cursor() } });
  }

  function heartbeat(head: Head | undefined): void {
    if (end !== undefined || replaying) return;
    if (head !== undefined && head.epoch !== epoch) renew(head.epoch);
    if (head !== undefined && head.seq > lastSeq) void fill(head.seq);
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
    tell({
      case: "reconnect",
      value: { after: durationFromMs(Math.round(deps.random() * withinMs)), cause, cursor: cursor() },
    });
    finish(undefined);
  }

  return {
    options,
    events,
    begin,
    arrived,
    heartbeat,
    reconnect,
    finish,
    /** Writes an encoded SubscribeResponse. */
    put,
    status: (bytes: Uint8Array) => (options.includeStatus ? put(bytes) : undefined),
    announcement: (event: Filtered, bytes: Uint8Array) => (options.passes(event) ? put(bytes) : undefined),
    tokenExpires: (at: Date) => tell({ case: "tokenExpiring", value: { expireTime: timestampFromDate(at) } }),
  };
}

/** Why a cursor cannot be continued; undefined when it can. */
export function whyReset(from: Cursor, head: Head | undefined): Reset_Cause | undefined {
  // The cursor of a user to whom nothing had arrived fits whatever inbox began since.
  if (from.epoch === 0 && from.seq === 0) return (head?.seq ?? 0) > MAX_REPLAY ? Reset_Cause.TOO_FAR_BEHIND : undefined;
  if (head === undefined || from.epoch !== head.epoch || from.seq > head.seq) return Reset_Cause.NEW_EPOCH;
  if (from.seq < head.trimmedSeq) return Reset_Cause.TRIMMED;
  return head.seq - from.seq > MAX_REPLAY ? Reset_Cause.TOO_FAR_BEHIND : undefined;
}

function encodeReplayed(row: InboxEntryRow, epoch: number): Uint8Array {
  return encodeArrival(
    {
      ...row,
      epoch,
      content: row.content ?? new Uint8Array(),
      tags: row.tags ?? [],
      senderId: row.senderId ?? "",
      expiresAt: row.expiresAt ?? undefined,
      counts: { unread: 0, unseen: 0, total: 0, archived: 0, snoozed: 0 },
    },
    true,
  );
}
