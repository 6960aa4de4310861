import type { SpanContext } from "@opentelemetry/api";
import fc from "fast-check";
import { headers } from "nats";
import { afterAll, expect, test } from "vitest";
import { readTraces, tracedItems, writeTraces } from "#src/telemetry/message-traces.ts";
import { startTracing } from "#src/telemetry/traces.ts";

const tracing = startTracing({ serviceName: "t", otlpEndpoint: undefined, otlpHeaders: undefined, sampleRatio: 1 });
afterAll(() => tracing[Symbol.asyncDispose]());

const hex = (length: number) => fc.stringMatching(new RegExp(`^[0-9a-f]{${length}}$`)).filter((id) => !/^0*$/.test(id));
const contexts = fc.uniqueArray(fc.record({ traceId: hex(32), spanId: hex(16), traceFlags: fc.constant(1) }), {
  minLength: 1,
  maxLength: 6,
  selector: ({ spanId }) => spanId,
});

test("whichever items of a chunk belong to whichever traces, the reader of its headers knows it", () => {
  fc.assert(
    fc.property(contexts, fc.array(fc.nat(7), { minLength: 1, maxLength: 250 }), (known, choices) => {
      // The last numbers stand for items that are not recorded.
      const items = choices.map((n) => ({ trace: known[n] }));
      const traced = tracedItems(items);
      const [first] = traced.keys();
      if (first === undefined) return;
      const own: SpanContext = { traceId: first.traceId, spanId: "00000000000000ff", traceFlags: 1 };
      const message = headers();
      writeTraces(message, own, traced, items.length);
      const read = readTraces(message, items.length);
      const found = items.map((_, position) => [...read].find(([, at]) => at.includes(position))?.[0].spanId);
      expect(found).toEqual(items.map(({ trace }) => (trace === first ? own : trace)?.spanId));
      expect(message.get("traceparent")).toBe(`00-${own.traceId}-${own.spanId}-01`);
    }),
  );
});

test("a message of one trace has one header", () => {
  const trace = { traceId: "1".repeat(32), spanId: "2".repeat(16), traceFlags: 1 };
  const message = headers();
  writeTraces(message, trace, tracedItems([{ trace }, { trace }]), 2);
  expect(message.keys()).toEqual(["traceparent"]);
});

test("what is no trace, or is not recorded, is passed over", () => {
  const message = headers();
  message.append("traceparent", `00-${"1".repeat(32)}-${"2".repeat(16)}-00`);
  message.append("posthorn-trace", "nonsense 1,2");
  message.append("posthorn-trace", "");
  expect(readTraces(message, 3).size).toBe(0);
  expect(readTraces(undefined, 3).size).toBe(0);
});
