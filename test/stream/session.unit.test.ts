import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import { BinaryWriter } from "@bufbuild/protobuf/wire";
import { timestampDate } from "@bufbuild/protobuf/wkt";
import fc from "fast-check";
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { ContentSchema } from "#gen/posthorn/v1/notification_pb.ts";
import {
  type NotificationArrived,
  Reconnect_Cause,
  Reset_Cause,
  type SubscribeResponse,
  SubscribeResponseSchema,
} from "#gen/posthorn/v1/stream_service_pb.ts";
import type { Head, InboxEntryRow } from "#src/inbox/entry.ts";
import { Encoded } from "#src/rpc/call.ts";
import { encodeLiveArrival, encodeReplayed } from "#src/stream/arrival.ts";
import { type Cursor, decodeCursor } from "#src/stream/cursor.ts";
import { ReceivedEvent } from "#src/stream/live-event.ts";
import { MAX_REPLAY, whyReset } from "#src/stream/reset.ts";
import { Session } from "#src/stream/session.ts";

// Plays an inbox, the live events about it, and a client that resumes whenever its stream ends, in any order of events:
// live events lost, doubled and out of order, reads of the inbox that take their time, erasures, a reader that pauses.

const content = toBinary(ContentSchema, create(ContentSchema, { title: "Hi" }));
const now = new Date();

type InFlight = { epoch: number; seq: number };

class World {
  epoch: number | undefined;
  seq = 0;
  inFlight: InFlight[] = [];
  /** Reads of the inbox that have not answered yet. */
  reads: (() => void)[] = [];
  session!: Session;
  /** What the client knows. */
  client: Cursor | undefined;
  seen: string[] = [];
  paused = false;
  resume: () => void = () => undefined;
  problems: string[] = [];
  began = false;
  streams = 0;
  #nextEpoch = 1;
  readonly #queueMax: number;

  constructor(existing: number, cursor: "none" | number, queueMax: number) {
    this.#queueMax = queueMax;
    if (existing > 0) this.commit(existing);
    this.inFlight = [];
    if (cursor !== "none")
      this.client =
        this.epoch === undefined ? { epoch: 0, seq: 0 } : { epoch: this.epoch, seq: Math.min(cursor, this.seq) };
    this.open();
  }

  head(): Head | undefined {
    if (this.epoch === undefined) return undefined;
    const counts = { unread: this.seq, total: this.seq, archived: 0, snoozed: 0 };
    return { epoch: this.epoch, seq: this.seq, trimmedSeq: 0, seenSeq: 0, ...counts };
  }

  commit(count: number): void {
    this.epoch ??= this.#nextEpoch++;
    for (let n = 0; n < count; n++) this.inFlight.push({ epoch: this.epoch, seq: ++this.seq });
  }

  erase(): void {
    this.epoch = undefined;
    this.seq = 0;
  }

  deliver(index: number, keep: boolean): void {
    const event = this.inFlight[index % Math.max(1, this.inFlight.length)];
    if (event === undefined) return;
    if (!keep) this.inFlight.splice(this.inFlight.indexOf(event), 1);
    this.session.arrived(event.seq, event.epoch, FILTERED, encoded(event));
  }

  lose(index: number): void {
    if (this.inFlight.length > 0) this.inFlight.splice(index % this.inFlight.length, 1);
  }

  /** Reads are as of when they are answered. */
  #slow<T>(read: () => T): Promise<T> {
    return new Promise((resolve) => this.reads.push(() => resolve(read())));
  }

  answer(): void {
    this.reads.shift()?.();
  }

  open(): void {
    this.began = false;
    const stream = ++this.streams;
    this.session = new Session(
      {
        tenantId: "t",
        userId: "u",
        streamId: "s",
        deviceId: "d",
        cursor: this.client,
        passes: () => true,
        includeStatus: true,
        heartbeatMs: 1000,
        queueMaxMessages: this.#queueMax,
        queueMaxBytes: 2 ** 20,
        closeAt: now,
      },
      {
        now: () => now,
        random: () => 0.5,
        head: () => this.#slow(() => this.head()),
        replay: (_, after, limit) =>
          this.#slow(() => ({
            epoch: this.epoch,
            rows: Array.from({ length: Math.max(0, Math.min(this.seq - after, limit)) }, (_, n) =>
              rowOf(after + 1 + n),
            ),
          })),
        onEnd: () => undefined,
        onSlow: () => undefined,
        onReplayed: () => undefined,
        onReset: () => undefined,
      },
    );
    void this.#read(this.session, stream);
  }

  begin(): void {
    if (this.began) return;
    this.began = true;
    void this.session.begin(this.head());
  }

  async #read(session: Session, stream: number): Promise<void> {
    let first = true;
    try {
      for await (const { bytes } of session.events) {
        const { event } = fromBinary(SubscribeResponseSchema, bytes);
        if (first && event.case !== "hello") this.problems.push(`${event.case} came before hello`);
        first = false;
        this.#client(event);
        while (this.paused) await this.#pause();
      }
    } catch {
      // Too slow: it resumes.
    }
    if (stream === this.streams) this.open();
  }

  #pause(): Promise<void> {
    return new Promise((resolve) => {
      this.resume = resolve;
    });
  }

  #client({ case: kind, value }: SubscribeResponse["event"]): void {
    if (kind === "hello" && this.client === undefined) {
      // From now on: what this client has to see begins after the head it was told.
      this.client = undefined;
    } else if (kind === "notification") {
      const at = decodeCursor(value.cursor) as Cursor;
      const { epoch, seq } = this.client ?? { epoch: 0, seq: 0 };
      const follows = at.epoch === epoch ? at.seq === seq + 1 : epoch === 0 && at.seq === 1;
      if (!follows) this.problems.push(`${at.epoch}/${at.seq} came after ${epoch}/${seq}`);
      this.client = at;
    } else if (kind === "reset" || kind === "caughtUp" || kind === "heartbeat" || kind === "reconnect") {
      const at = decodeCursor(value.cursor);
      if (at === undefined) return;
      const known = this.client;
      // To begin an inbox is to have nothing of it.
      const begins = known?.seq === 0 && at.seq === 0;
      if (kind !== "reset" && known !== undefined && !begins && (known.epoch !== at.epoch || known.seq !== at.seq))
        this.problems.push(`${kind} says ${at.epoch}/${at.seq}, the client has ${known.epoch}/${known.seq}`);
      this.client = at;
    }
  }

  /** Lets everything come to rest: no more losses, and heartbeats as the hub sends them. */
  async settle(): Promise<void> {
    this.paused = false;
    this.resume();
    for (let round = 0; round < 60; round++) {
      this.begin();
      while (this.inFlight.length > 0) this.deliver(0, false);
      this.session.heartbeat(this.head());
      for (let step = 0; step < 8; step++) {
        await flush();
        while (this.reads.length > 0) this.answer();
      }
      vi.advanceTimersByTime(50);
      await flush();
    }
  }
}

const FILTERED = { type: "general", category: "general", priority: 2, tags: [] };

function encoded({ epoch, seq }: InFlight): Encoded {
  const counts = { unread: 0, unseen: 0, total: 0, archived: 0, snoozed: 0 };
  const arrival = { ...entry(seq), content, tags: [], senderId: "", expiresAt: undefined, epoch, counts };
  return new ReceivedEvent(encodeLiveArrival(arrival, true, new BinaryWriter())).response;
}

const entry = (seq: number) => ({
  userId: "u",
  notificationId: `n${seq}`,
  seq,
  ...FILTERED,
  arrivedAt: now,
});

function rowOf(seq: number): InboxEntryRow {
  const untouched = { readAt: null, archivedAt: null, snoozedUntil: null, expiresAt: null, seen: false };
  return { ...entry(seq), tags: null, senderId: null, content, ...untouched };
}

async function flush(): Promise<void> {
  for (let n = 0; n < 30; n++) await Promise.resolve();
}

const step = fc.oneof(
  { weight: 4, arbitrary: fc.record({ do: fc.constant("commit" as const), n: fc.integer({ min: 1, max: 6 }) }) },
  { weight: 8, arbitrary: fc.record({ do: fc.constant("deliver" as const), n: fc.nat(10) }) },
  { weight: 2, arbitrary: fc.record({ do: fc.constant("double" as const), n: fc.nat(10) }) },
  { weight: 2, arbitrary: fc.record({ do: fc.constant("lose" as const), n: fc.nat(10) }) },
  { weight: 4, arbitrary: fc.record({ do: fc.constant("answer" as const), n: fc.constant(0) }) },
  { weight: 2, arbitrary: fc.record({ do: fc.constant("begin" as const), n: fc.constant(0) }) },
  { weight: 2, arbitrary: fc.record({ do: fc.constant("wait" as const), n: fc.integer({ min: 1, max: 25 }) }) },
  { weight: 2, arbitrary: fc.record({ do: fc.constant("heartbeat" as const), n: fc.constant(0) }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant("pause" as const), n: fc.constant(0) }) },
  { weight: 2, arbitrary: fc.record({ do: fc.constant("resume" as const), n: fc.constant(0) }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant("notice" as const), n: fc.constant(0) }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant("erase" as const), n: fc.constant(0) }) },
);

function run(world: World, { do: what, n }: { do: string; n: number }): void {
  if (what === "commit") world.commit(n);
  else if (what === "deliver") world.deliver(n, false);
  else if (what === "double") world.deliver(n, true);
  else if (what === "lose") world.lose(n);
  else if (what === "answer") world.answer();
  else if (what === "begin") world.begin();
  else if (what === "wait") vi.advanceTimersByTime(n);
  else if (what === "heartbeat" && world.began) world.session.heartbeat(world.head());
  else if (what === "pause") world.paused = true;
  else if (what === "resume") {
    world.paused = false;
    world.resume();
  } else if (what === "notice") world.session.put(NOTICE);
  else if (what === "erase") world.erase();
}

const NOTICE = new Encoded(
  toBinary(
    SubscribeResponseSchema,
    create(SubscribeResponseSchema, { event: { case: "inbox", value: { all: true } } }),
  ),
);

beforeEach(() => void vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout"] }));
afterEach(() => void vi.useRealTimers());

test("whatever happens to live events and however long reads take, each sequence is seen once and in order", async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.nat(12),
      fc.oneof(fc.constant("none" as const), fc.nat(12)),
      fc.constantFrom(3, 8, 64),
      fc.array(step, { maxLength: 40 }),
      async (existing, cursor, queueMax, steps) => {
        const world = new World(existing, cursor, queueMax);
        for (const each of steps) {
          run(world, each);
          if (each.n % 2 === 0) await flush();
        }
        await world.settle();
        expect(world.problems).toEqual([]);
        // Nothing is missing: the client stands where the inbox stands.
        if (world.epoch !== undefined && world.client !== undefined)
          expect(world.client).toEqual({ epoch: world.epoch, seq: world.seq });
        else if (world.epoch !== undefined) expect.fail("the client has no cursor after heartbeats");
        world.session.finish(undefined);
      },
    ),
    { numRuns: 1000 },
  );
});

/** A session that has begun on an inbox of `existing` entries, and what its reader has got. */
async function begun(
  existing: number,
  options: { cursor?: number; queueMax?: number; bytes?: Uint8Array; reads?: boolean } = {},
) {
  const world = { seq: existing, reads: 0, slow: 0, passed: 0 };
  const head = () => ({
    epoch: 1,
    seq: world.seq,
    trimmedSeq: 0,
    seenSeq: 0,
    unread: 0,
    total: 0,
    archived: 0,
    snoozed: 0,
  });
  const session = new Session(
    {
      tenantId: "t",
      userId: "u",
      streamId: "s",
      deviceId: "d",
      cursor: options.cursor === undefined ? undefined : { epoch: 1, seq: options.cursor },
      passes: () => true,
      includeStatus: false,
      heartbeatMs: 1000,
      queueMaxMessages: options.queueMax ?? 256,
      queueMaxBytes: 2 ** 20,
      closeAt: now,
    },
    {
      now: () => new Date(now.getTime() + world.passed),
      random: () => 0.5,
      head: async () => head(),
      async replay(_, after, limit) {
        world.reads++;
        const rows = Array.from({ length: Math.min(world.seq - after, limit) }, (_, n) => rowOf(after + 1 + n));
        return { epoch: 1, rows: rows.map((row) => ({ ...row, content: options.bytes ?? content })) };
      },
      onEnd: () => undefined,
      onSlow: () => void world.slow++,
      onReplayed: () => undefined,
      onReset: () => undefined,
    },
  );
  const got: SubscribeResponse["event"][] = [];
  const iterator = session.events[Symbol.asyncIterator]();
  const reading = (async () => {
    if (options.reads === false) return;
    for await (const { bytes } of session.events) got.push(fromBinary(SubscribeResponseSchema, bytes).event);
  })();
  const arrive = (seq: number) => {
    world.seq = Math.max(world.seq, seq);
    session.arrived(seq, 1, FILTERED, encoded({ epoch: 1, seq }));
  };
  const sequences = () =>
    got.flatMap(({ case: kind, value }) => (kind === "notification" ? Number(value.entry?.sequence) : []));
  return { world, session, got, reading, arrive, sequences, head, iterator };
}

test("a replay larger than the queue, of large entries, waits for its reader and does not cut them off", async () => {
  const large = toBinary(ContentSchema, create(ContentSchema, { title: "Hi", body: "x".repeat(24_000) }));
  const { world, session, head, sequences, got } = await begun(900, { cursor: 0, bytes: large });
  await session.begin(head());
  while (got.at(-1)?.case !== "caughtUp") await flush();
  expect(world.slow).toBe(0);
  expect(sequences()).toEqual(Array.from({ length: 900 }, (_, n) => n + 1));
});

test("a sequence that stays away is read from the inbox after a moment, without a heartbeat", async () => {
  const { world, session, head, sequences, arrive } = await begun(0, { cursor: 0 });
  await session.begin(head());
  arrive(1);
  arrive(3);
  await flush();
  expect(sequences()).toEqual([1]);
  vi.advanceTimersByTime(25);
  await flush();
  expect(sequences()).toEqual([1, 2, 3]);
  expect(world.reads).toBe(1);
});

test("sequences that only overtook each other are put in order without a read", async () => {
  const { world, session, head, sequences, arrive } = await begun(0, { cursor: 0 });
  await session.begin(head());
  for (const seq of [2, 3, 1, 2]) arrive(seq);
  vi.advanceTimersByTime(25);
  await flush();
  expect(sequences()).toEqual([1, 2, 3]);
  expect(world.reads).toBe(0);
});

test("what arrives while a stream opens is sent without waiting for a heartbeat", async () => {
  const { session, head, sequences, arrive } = await begun(0, { cursor: 0 });
  const before = head();
  arrive(1);
  await session.begin(before);
  vi.advanceTimersByTime(25);
  await flush();
  expect(sequences()).toEqual([1]);
});

test("a burst for a reader who is slower than it is read from the inbox as they take it", async () => {
  const { world, session, head, sequences, arrive } = await begun(0, { cursor: 0, queueMax: 4 });
  await session.begin(head());
  for (let seq = 1; seq <= 100; seq++) arrive(seq);
  while (sequences().length < 100) await flush();
  expect(sequences()).toEqual(Array.from({ length: 100 }, (_, n) => n + 1));
  expect(world.slow).toBe(0);
});

test("a reader who takes nothing from one heartbeat to the next is closed, and what is queued for them is theirs", async () => {
  const { world, session, head, arrive, iterator } = await begun(0, { cursor: 0, queueMax: 4, reads: false });
  await session.begin(head());
  for (let seq = 1; seq <= 9; seq++) arrive(seq);
  for (const { value } of [await iterator.next(), await iterator.next()]) expect(value).toBeDefined();
  session.heartbeat(head());
  world.passed = 999;
  session.heartbeat(head());
  expect(world.slow).toBe(0);
  world.passed = 1000;
  session.heartbeat(head());
  expect(world.slow).toBe(1);
  const next = async () =>
    fromBinary(SubscribeResponseSchema, (await iterator.next()).value?.bytes ?? content).event.case;
  expect(await next()).toBe("notification");
  await expect(
    (async () => {
      for (;;) await next();
    })(),
  ).rejects.toThrow("read too slowly");
});

test("a reader for whom more happened beside notifications than the queue holds is closed", async () => {
  const { world, session, head } = await begun(0, { cursor: 0, queueMax: 4, reads: false });
  await session.begin(head());
  for (let n = 0; n < 3; n++) session.put(NOTICE);
  expect(world.slow).toBe(1);
});

test("a stream that has to reconnect before it is open ends with an error, not without a word", async () => {
  const { session, reading, got } = await begun(7, { cursor: 3 });
  session.reconnect(Reconnect_Cause.DRAIN, 1000);
  await expect(reading).rejects.toThrow("shutting down");
  expect(got).toEqual([]);
});

test("a replayed entry says what became of it since", () => {
  const bytes = encodeReplayed({ ...rowOf(1), readAt: now, archivedAt: now, snoozedUntil: now, seen: true }, 1);
  const { value } = fromBinary(SubscribeResponseSchema, bytes).event;
  const arrived = value as NotificationArrived;
  expect(arrived.replayed).toBe(true);
  expect(arrived.entry).toMatchObject({ seen: true, content: { title: "Hi" } });
  for (const time of [arrived.entry?.readTime, arrived.entry?.archiveTime, arrived.entry?.snoozeTime])
    expect(time && timestampDate(time)).toEqual(now);
});

test.each([
  ["nothing had arrived and still has not", { epoch: 0, seq: 0 }, undefined, undefined],
  ["nothing had arrived, and an inbox has begun", { epoch: 0, seq: 0 }, { seq: 3 }, undefined],
  [
    "nothing had arrived, and what came was trimmed",
    { epoch: 0, seq: 0 },
    { seq: 3, trimmedSeq: 1 },
    Reset_Cause.TRIMMED,
  ],
  ["all is there", { epoch: 1, seq: 2 }, { seq: 3, trimmedSeq: 2 }, undefined],
  ["the next entry was trimmed", { epoch: 1, seq: 1 }, { seq: 3, trimmedSeq: 2 }, Reset_Cause.TRIMMED],
  ["the inbox was erased", { epoch: 1, seq: 2 }, undefined, Reset_Cause.NEW_EPOCH],
  ["the inbox began anew", { epoch: 2, seq: 2 }, { seq: 3 }, Reset_Cause.NEW_EPOCH],
  ["the cursor is ahead, as after a restored backup", { epoch: 1, seq: 4 }, { seq: 3 }, Reset_Cause.NEW_EPOCH],
  ["exactly as much was missed as is replayed", { epoch: 1, seq: 0 }, { seq: MAX_REPLAY }, undefined],
  ["one more was missed", { epoch: 1, seq: 0 }, { seq: MAX_REPLAY + 1 }, Reset_Cause.TOO_FAR_BEHIND],
  [
    "one more was missed since nothing had arrived",
    { epoch: 0, seq: 0 },
    { seq: MAX_REPLAY + 1 },
    Reset_Cause.TOO_FAR_BEHIND,
  ],
])("why a cursor cannot go on: %s", (_, from, head, cause) => {
  const base = { epoch: 1, seq: 0, trimmedSeq: 0, seenSeq: 0, unread: 0, total: 0, archived: 0, snoozed: 0 };
  expect(whyReset(from, head && { ...base, ...head })).toBe(cause);
});
