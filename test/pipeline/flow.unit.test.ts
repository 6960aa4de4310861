import { randomUUID } from "node:crypto";
import fc from "fast-check";
import { expect, test } from "vitest";
import { Priority } from "#gen/posthorn/v1/notification_pb.ts";
import {
  ALL_SHARDS,
  decodeWork,
  encodeWork,
  FLOOD_SHARDS,
  floodShardBeside,
  ingestShard,
  ingestStream,
  ingestStreamConfig,
  isFloodShard,
  LANES,
  laneOf,
  live,
  routeConsumerConfig,
  SHARDS,
  shardOf,
} from "#src/pipeline/flow.ts";
import { givesBack, POISON_ATTEMPTS, retryDelay } from "#src/pipeline/redelivery.ts";

test("every priority has the lane of its name, the most urgent first, and none means NORMAL", () => {
  expect(LANES.map((lane) => lane.priority)).toEqual([Priority.CRITICAL, Priority.HIGH, Priority.NORMAL, Priority.LOW]);
  for (const lane of LANES) expect(laneOf(lane.priority)).toBe(lane);
  expect(laneOf(Priority.UNSPECIFIED).name).toBe("normal");
  expect(laneOf(99).name).toBe("normal");
});

test("a tenant keeps its shard, and tenants spread over all of them", () => {
  const counts = new Map<number, number>();
  for (let n = 0; n < 4000; n++) {
    const shard = shardOf(randomUUID());
    counts.set(shard, (counts.get(shard) ?? 0) + 1);
  }
  expect(counts.size).toBe(SHARDS);
  for (const [shard, count] of counts) {
    expect(shard).toBeLessThan(SHARDS);
    expect(count).toBeGreaterThan((4000 / SHARDS) * 0.6);
  }
  expect(shardOf("a")).toBe(shardOf("a"));
});

test("each shard has one for floods beside it, which is none of the usual ones, and these are shared alike", () => {
  const beside = Map.groupBy(
    Array.from({ length: SHARDS }, (_, shard) => shard),
    floodShardBeside,
  );
  expect([...beside.keys()].sort()).toEqual(Array.from({ length: FLOOD_SHARDS }, (_, n) => SHARDS + n));
  for (const [shard, usual] of beside) {
    expect([...usual, shard].filter(isFloodShard)).toEqual([shard]);
    expect(usual).toHaveLength(SHARDS / FLOOD_SHARDS);
    expect(shard).toBeLessThan(ALL_SHARDS);
  }
});

/** Whether NATS takes it for one subject without wildcards. */
const isPlain = (subject: string) => /^[^\s.*>]+(\.[^\s.*>]+)*$/.test(subject);

test("subjects are plain whatever ids are in them, and different ids have different subjects", () => {
  const id = fc.oneof(
    fc.string({
      minLength: 1,
      maxLength: 128,
      unit: fc.integer({ min: 0x21, max: 0x7e }).map((c) => String.fromCharCode(c)),
    }),
    fc.constantFrom("*", ">", "a.b", "a.*", "..", "$SYS.>", "_INBOX.x"),
  );
  fc.assert(
    fc.property(id, id, (a, b) => {
      expect(isPlain(live.user("ns", "t", a))).toBe(true);
      expect(isPlain(live.topic("ns", "t", a))).toBe(true);
      expect(live.user("ns", "t", a) === live.user("ns", "t", b)).toBe(a === b);
    }),
  );
});

test("streams, consumers and subjects of a lane fit together", () => {
  const tenantId = randomUUID();
  for (const { name } of LANES) {
    const subject = ingestShard("my.space", name, shardOf(tenantId));
    expect(ingestStream("my.space", name)).toMatch(/^[A-Z0-9a-z_-]+$/);
    expect(ingestStreamConfig("my.space", name, 1).subjects).toEqual([`my.space.ingest.${name}.*`]);
    expect(routeConsumerConfig("my.space", name, shardOf(tenantId)).filter_subject).toBe(subject);
  }
});

test("work survives its encoding", () => {
  for (const work of [
    { tenantId: "t", ids: ["a", "b"] },
    { tenantId: "t", fanoutId: "f" },
  ])
    expect(decodeWork(encodeWork(work))).toEqual(work);
});

test("pauses between attempts grow and stay short enough for a nak", () => {
  const delays = Array.from({ length: 20 }, (_, n) => retryDelay(n + 1));
  expect(delays[0]).toBe(200);
  expect(delays).toEqual(delays.toSorted((a, b) => a - b));
  expect(Math.max(...delays)).toBeLessThan(30_000);
  expect(POISON_ATTEMPTS).toBeGreaterThan(1);
});

test("what always fails goes back to the record while other work succeeds, and sooner or later when none does", () => {
  expect(givesBack(POISON_ATTEMPTS, 0)).toBe(false);
  expect(givesBack(POISON_ATTEMPTS + 1, 1000)).toBe(true);
  // With the queue of a minute's outage nothing is done.
  let outageMs = 0;
  for (let attempt = 1; outageMs < 60_000; outageMs += retryDelay(attempt++)) {
    expect(givesBack(attempt, outageMs)).toBe(false);
  }
  expect(givesBack(100, Number.POSITIVE_INFINITY)).toBe(true);
});

test("whatever is on a queue is work of ours or refused, and never half of one", () => {
  const part = fc.oneof(
    fc.string(),
    fc.integer(),
    fc.array(fc.oneof(fc.string(), fc.integer())),
    fc.constant(undefined),
  );
  const like = fc.record({ tenantId: part, ids: part, fanoutId: part });
  fc.assert(
    fc.property(
      fc.oneof(fc.jsonValue(), like, fc.constantFrom(5, null, { ids: 5 }, { tenantId: "a", ids: 5 })),
      (value) => {
        let work: ReturnType<typeof decodeWork>;
        try {
          work = decodeWork(Buffer.from(JSON.stringify(value) ?? ""));
        } catch {
          return;
        }
        expect(work.tenantId).toBeTypeOf("string");
        if ("ids" in work) for (const id of work.ids) expect(id).toBeTypeOf("string");
        else expect(work.fanoutId).toBeTypeOf("string");
      },
    ),
  );
});
