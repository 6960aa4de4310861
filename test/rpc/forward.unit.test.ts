import { EventEmitter } from "node:events";
import type { ServerHttp2Stream } from "node:http2";
import fc from "fast-check";
import { expect, test } from "vitest";
import { ErrorReason } from "#gen/posthorn/v1/error_pb.ts";
import { Fault } from "#src/errors.ts";
import { Encoded } from "#src/rpc/call.ts";
import type { Exchange } from "#src/rpc/exchange.ts";
import type { Writable } from "#src/rpc/grpc/endings.ts";
import { Forward } from "#src/rpc/grpc/forward.ts";
import { OutQueue, Reader } from "#src/stream/out-queue.ts";

const ROOM = 4;

/** A caller that reads when it is told to; its stream takes `takes` frames before it is full. */
function forwarding({ takes = Number.POSITIVE_INFINITY, stallMs = 60_000, maxSendBytes = 100 } = {}) {
  const written: number[] = [];
  const ends: unknown[] = [];
  let held = 0;
  const closings: unknown[] = [];
  const stream = Object.assign(new EventEmitter(), {
    destroyed: false,
    write(frame: Buffer) {
      written.push(frame[5] ?? -1);
      return ++held < takes;
    },
    close(code: number): void {
      closings.push(code);
    },
  });
  const exchange = {
    ended: false,
    succeed() {
      const first = !exchange.ended;
      exchange.ended = true;
      return first;
    },
    fail(error: unknown) {
      exchange.ended = true;
      return error;
    },
    abort() {
      exchange.ended = true;
    },
  };
  const call = Object.assign(new EventEmitter(), { destroyed: false, call: { stream }, end: () => ends.push("good") });
  call.on("error", ({ details }) => ends.push(details));
  const queue = new OutQueue(ROOM, 1000);
  let finished = 0;
  const reader = new Reader(queue, {
    finish(error: undefined) {
      finished++;
      queue.end(error);
    },
  });
  const forward = new Forward(
    exchange as unknown as Exchange,
    call as unknown as Writable,
    stream as unknown as ServerHttp2Stream,
    reader,
    { stallMs, maxSendBytes },
  );
  return {
    ...{ written, ends, stream, exchange, queue, forward },
    closings,
    finished: () => finished,
    listeners: () => stream.listenerCount("drain") + stream.listenerCount("close"),
    /** The caller reads all that was written. */
    async read() {
      held = 0;
      stream.emit("drain");
      await settled();
    },
    async close() {
      stream.destroyed = true;
      stream.emit("close");
      await settled();
    },
  };
}
const settled = () => new Promise((resolve) => setImmediate(resolve));
const message = (n: number) => new Encoded(Uint8Array.of(n));

test("what the queue takes is written once and in order, however the caller reads, and then the end is told once", async () => {
  const step = fc.constantFrom("push" as const, "push" as const, "push" as const, "read" as const);
  await fc.assert(
    fc.asyncProperty(
      fc.array(step, { maxLength: 60 }),
      fc.nat(5),
      fc.integer({ min: 1, max: 5 }),
      fc.boolean(),
      async (steps, early, takes, fails) => {
        const it = forwarding({ takes });
        const taken: number[] = [];
        const push = (n: number) => {
          if (it.queue.push(message(n))) taken.push(n);
        };
        for (let n = 0; n < early; n++) push(n);
        it.forward.run();
        for (const [n, what] of steps.entries()) {
          if (what === "push") push(early + n);
          else await it.read();
        }
        it.queue.end(fails ? new Fault(ErrorReason.OVERLOADED) : undefined);
        while (it.listeners() > 0) await it.read();
        expect(it.written).toEqual(taken);
        expect(it.ends).toHaveLength(1);
        expect(it.ends[0] === "good").toBe(!fails);
        expect([it.queue.length, it.finished()]).toEqual([0, 1]);
      },
    ),
  );
});

test("a caller that goes while its stream is full, and one that ends meanwhile, leave nothing behind", async () => {
  const gone = forwarding({ takes: 1 });
  gone.forward.run();
  for (let n = 0; n <= ROOM; n++) expect(gone.queue.push(message(n))).toBe(true);
  expect(gone.queue.push(message(99))).toBe(false);
  expect(gone.listeners()).toBe(2);
  gone.exchange.ended = true;
  await gone.close();
  expect([gone.written, gone.listeners(), gone.finished(), gone.queue.ended]).toEqual([[0], 0, 1, true]);
  expect(gone.ends).toEqual([]);
});

test("a caller that does not read is reset, and what fills its stream is told", async () => {
  const it = forwarding({ takes: 1, stallMs: 1 });
  it.forward.run();
  it.queue.push(message(1));
  await new Promise((resolve) => {
    it.stream.close = (code) => resolve(code);
  });
  await settled();
  expect([it.listeners(), it.finished(), it.exchange.ended]).toEqual([0, 1, true]);
});

test("an answer that is too large ends the stream with that, and nothing behind it is written", () => {
  const it = forwarding({ maxSendBytes: 10 });
  it.queue.push(message(1));
  it.queue.push(new Encoded(new Uint8Array(50)));
  it.queue.push(message(3));
  it.forward.run();
  expect(it.written).toEqual([1]);
  expect([it.ends.length, it.finished(), it.queue.ended]).toEqual([1, 1, true]);
});

test("a call that has ended writes nothing of what comes, and lets go of it", () => {
  const it = forwarding();
  it.forward.run();
  it.exchange.ended = true;
  it.queue.push(message(1));
  expect([it.written, it.finished(), it.queue.ended]).toEqual([[], 1, true]);
});
