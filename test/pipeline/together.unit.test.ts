import fc from "fast-check";
import { afterAll, expect, test } from "vitest";
import { CHUNK, type Work } from "#src/pipeline/flow.ts";
import { backlogOf, inParts, takeTogether, tracesTogether, type Waiting } from "#src/pipeline/together.ts";
import { format } from "#src/telemetry/message-traces.ts";
import { startTracing } from "#src/telemetry/traces.ts";

const tracing = startTracing({ serviceName: "t", otlpEndpoint: undefined, otlpHeaders: undefined, sampleRatio: 1 });
afterAll(() => tracing[Symbol.asyncDispose]());

const nothing = () => undefined;

function waiting(work: Work | undefined, deliveryCount = 1, headers = new Map<string, string[]>()): Waiting {
  const message = {
    headers: { get: (name: string) => headers.get(name)?.[0] ?? "", values: (name: string) => headers.get(name) ?? [] },
    info: { deliveryCount },
    subject: "s",
    ack: nothing,
    nak: nothing,
    working: nothing,
  };
  return { message: message as never, work };
}

const ids = (count: number, tenantId = "a"): Work => ({
  tenantId,
  ids: Array.from({ length: count }, (_, n) => `${tenantId}${n}`),
});

test("what waits of one tenant goes together, up to a chunk", () => {
  const queue = [waiting(ids(100)), waiting(ids(100)), waiting(ids(51)), waiting(ids(1))];
  const together = takeTogether(queue);
  expect(together.waiting).toHaveLength(2);
  expect(together.work).toMatchObject({ tenantId: "a", ids: { length: 200 } });
  expect(takeTogether(queue)).toMatchObject({ waiting: { length: 2 }, work: { ids: { length: 52 } } });
  expect(queue).toEqual([]);
});

test("of what waits only so much is taken as is asked for", () => {
  const queue = [waiting(ids(1)), waiting(ids(24)), waiting(ids(200))];
  expect(takeTogether(queue, 25)).toMatchObject({ waiting: { length: 2 }, work: { ids: { length: 25 } } });
  expect(queue).toHaveLength(1);
});

test.each([
  ["another tenant's", waiting(ids(1, "b"))],
  ["a fan-out", waiting({ tenantId: "a", fanoutId: "f" })],
  ["what has failed before", waiting(ids(1), 2)],
  ["what cannot be read", waiting(undefined)],
])("%s is taken alone", (_, other) => {
  const queue = [waiting(ids(1)), other, waiting(ids(1))];
  const taken = [takeTogether(queue), takeTogether(queue), takeTogether(queue)];
  expect(taken.map((together) => together.waiting.length)).toEqual([1, 1, 1]);
  expect(taken[1]).toEqual({ waiting: [other], work: other.work });
});

test("whatever waits, everything is taken once and in order, and no more than a chunk at a time", () => {
  const kinds = fc.record({
    size: fc.integer({ min: 1, max: CHUNK }),
    tenant: fc.constantFrom("a", "b"),
    attempt: fc.constantFrom(1, 1, 2),
    kind: fc.constantFrom("ids", "ids", "ids", "fanout", "broken"),
  });
  fc.assert(
    fc.property(fc.array(kinds, { maxLength: 20 }), (list) => {
      const all = list.map(({ size, tenant, attempt, kind }) =>
        waiting(
          kind === "ids" ? ids(size, tenant) : kind === "fanout" ? { tenantId: tenant, fanoutId: "f" } : undefined,
          attempt,
        ),
      );
      const queue = [...all];
      const taken: Waiting[] = [];
      while (queue.length > 0) {
        const together = takeTogether(queue);
        expect(together.waiting.length).toBeGreaterThan(0);
        taken.push(...together.waiting);
        const { work } = together;
        if (work === undefined || !("ids" in work)) continue;
        expect(work.ids.length).toBeLessThanOrEqual(CHUNK);
        expect(work.ids).toEqual(together.waiting.flatMap((each) => (each.work as { ids: string[] }).ids));
      }
      expect(taken).toEqual(all);
    }),
  );
});

test("work is taken apart as the size is at the time, in order and without leaving anything out", () => {
  fc.assert(
    fc.property(
      fc.integer({ min: 1, max: 600 }),
      fc.array(fc.integer({ min: 1, max: 250 }), { minLength: 1 }),
      (count, sizes) => {
        const work = ids(count) as { tenantId: string; ids: string[] };
        let asked = 0;
        const parts = [...inParts(work, () => sizes[asked++ % sizes.length] ?? 1)];
        const seen = parts.map(({ part }) => (part as typeof work).ids);
        expect(seen.flat()).toEqual(work.ids);
        let left = count;
        parts.forEach(({ rest }, n) => {
          expect(seen[n]?.length).toBe(Math.min(left, sizes[n % sizes.length] ?? 1));
          left -= seen[n]?.length ?? 0;
          expect(rest).toBe(left);
        });
        // What goes in one is handed on as it is.
        if (parts.length === 1) expect(parts[0]?.part).toBe(work);
      },
    ),
  );
  const fanout = { tenantId: "a", fanoutId: "f" };
  expect([...inParts(fanout, () => 1)]).toEqual([{ part: fanout, rest: 0 }]);
});

test("the backlog is what is here, and what the queue has told of at as many for each message", () => {
  const told = (work: Work, pending: number) => ({
    ...waiting(work),
    message: { ...waiting(work).message, info: { deliveryCount: 1, pending } as never },
  });
  const queue = [told(ids(10), 5), told(ids(30), 4), told({ tenantId: "a", fanoutId: "f" }, 3), told(ids(7, "b"), 2)];
  const together = takeTogether(queue);
  expect(together.work).toMatchObject({ ids: { length: 40 } });
  expect(backlogOf(queue, together)).toBe(7 + 2 * 20);
  expect(backlogOf([], together)).toBe(4 * 20);
});

test("traces stay with their ids", () => {
  const [first, second] = ["1", "2"].map((digit) => ({
    traceId: digit.repeat(32),
    spanId: digit.repeat(16),
    traceFlags: 1,
  }));
  const queue = [
    waiting(ids(3)),
    waiting(ids(2), 1, new Map([["traceparent", [format(first!)]]])),
    waiting(ids(2), 1, new Map([["posthorn-trace", [`${format(second!)} 1`]]])),
  ];
  const traced = [...tracesTogether(takeTogether(queue))];
  expect(traced.map(([{ traceId }, positions]) => [traceId, positions])).toEqual([
    [first!.traceId, [3, 4]],
    [second!.traceId, [6]],
  ]);
});
