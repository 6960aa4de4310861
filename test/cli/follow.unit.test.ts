import { create, type MessageInitShape } from "@bufbuild/protobuf";
import { Code, ConnectError } from "@connectrpc/connect";
import fc from "fast-check";
import { expect, test } from "vitest";
import { RetryInfoSchema } from "#gen/google/rpc/error_details_pb.ts";
import { type SubscribeResponse, SubscribeResponseSchema } from "#gen/posthorn/v1/stream_service_pb.ts";
import { type Follow, follow, pauseMs } from "#src/cli/follow.ts";

type Event = NonNullable<MessageInitShape<typeof SubscribeResponseSchema>["event"]>;

const event = (event: Event): SubscribeResponse => create(SubscribeResponseSchema, { event });
const hello = (ms = 10_000) =>
  event({
    case: "hello",
    value: { heartbeatInterval: { seconds: BigInt(Math.floor(ms / 1000)), nanos: (ms % 1000) * 1e6 } },
  });
const arrived = (sequence: number) =>
  event({ case: "notification", value: { entry: { sequence: BigInt(sequence) }, cursor: `c${sequence}` } });

type Script = (cursor: string, signal: AbortSignal) => AsyncIterable<SubscribeResponse>;

/** A stream that ends at once with an error. */
const failing =
  (error: Error): Script =>
  () => ({ [Symbol.asyncIterator]: () => ({ next: () => Promise.reject(error) }) });

/** Follows streams that play the scripts one after the other; ends when the last has. */
async function following(scripts: Script[], over: Partial<Follow> = {}) {
  const stop = new AbortController();
  const opened: string[] = [];
  const cuts: { why: string; pause: number }[] = [];
  const sequences: number[] = [];
  const events = follow({
    async *open(cursor, signal) {
      opened.push(cursor);
      const script = scripts[opened.length - 1];
      if (script) yield* script(cursor, signal);
      if (opened.length >= scripts.length) stop.abort();
    },
    cursor: "",
    signal: stop.signal,
    now: () => new Date(0),
    random: () => 0,
    onCut: (why, pause) => void cuts.push({ why, pause }),
    ...over,
  });
  for await (const { event } of events)
    if (event.case === "notification") sequences.push(Number(event.value.entry?.sequence));
  return { opened, cuts, sequences };
}

test("a cut stream goes on from its last cursor, and what comes again is passed over", async () => {
  const { opened, sequences, cuts } = await following([
    async function* () {
      yield hello();
      yield arrived(1);
      yield arrived(2);
      throw new ConnectError("cut", Code.Unavailable);
    },
    async function* () {
      yield arrived(2);
      yield arrived(3);
    },
    async function* () {
      yield arrived(4);
    },
  ]);
  expect(opened).toEqual(["", "c2", "c3"]);
  expect(sequences).toEqual([1, 2, 3, 4]);
  expect(cuts.map(({ why }) => why)).toEqual(["cut", "the server ended the stream"]);
});

test("the server's advice to reconnect is followed to the millisecond, from the cursor it gives", async () => {
  const { opened, cuts } = await following(
    [
      async function* () {
        yield arrived(1);
        yield event({ case: "reconnect", value: { after: { seconds: 0n, nanos: 7_000_000 }, cursor: "c9" } });
        yield arrived(2);
      },
      async function* () {},
    ],
    { random: () => 1 },
  );
  expect(opened).toEqual(["", "c9"]);
  expect(cuts[0]).toEqual({ why: "the server asked to reconnect", pause: 7 });
});

test("RetryInfo is the least pause", async () => {
  const { cuts } = await following([
    async function* () {
      yield hello();
      const details = [{ desc: RetryInfoSchema, value: { retryDelay: { nanos: 5_000_000 } } }];
      throw new ConnectError("busy", Code.ResourceExhausted, undefined, details);
    },
    async function* () {},
  ]);
  expect(cuts[0]?.pause).toBe(5);
});

test("a silent stream is given up after 2.5 heartbeats", async () => {
  const { opened, cuts } = await following([
    async function* (_, signal) {
      yield hello(20);
      await new Promise((_, reject) => signal.addEventListener("abort", () => reject(signal.reason)));
    },
    async function* () {},
  ]);
  expect(opened).toHaveLength(2);
  expect(cuts[0]?.why).toContain("nothing was heard");
});

test("after a reset the numbers may begin anew", async () => {
  const { sequences } = await following([
    async function* () {
      yield arrived(7);
      yield event({ case: "reset", value: { cursor: "r" } });
      yield arrived(1);
    },
  ]);
  expect(sequences).toEqual([7, 1]);
});

test("a first attempt that fails is told, not repeated", async () => {
  const nobody = failing(new ConnectError("nobody there", Code.Unavailable));
  await expect(following([nobody, nobody])).rejects.toThrow("nobody there");
});

test.each([Code.Unauthenticated, Code.PermissionDenied, Code.InvalidArgument])(
  "a refusal with code %i ends it, however often it was connected",
  async (code) => {
    const scripts: Script[] = [
      async function* () {
        yield hello();
      },
      failing(new ConnectError("no", code)),
      async function* () {},
    ];
    await expect(following(scripts)).rejects.toThrow("no");
  },
);

test("pauses lie between nothing and a bound that doubles up to 30 s", () => {
  fc.assert(
    fc.property(fc.nat(50), fc.double({ min: 0, max: 1, noNaN: true }), (attempt, random) => {
      const pause = pauseMs(attempt, random);
      expect(pause).toBeGreaterThanOrEqual(0);
      expect(pause).toBeLessThanOrEqual(Math.min(30_000, 1000 * 2 ** attempt));
    }),
  );
  expect(pauseMs(0, 1)).toBe(1000);
  expect(pauseMs(4, 1)).toBe(16_000);
  expect(pauseMs(5, 1)).toBe(30_000);
});
