import { type SpanContext, TraceFlags, trace } from "@opentelemetry/api";
import { extractTrace } from "./traces.ts";

// The traces of a chunk in the headers of its message. `traceparent` (W3C Trace Context) is the message's own and says
// all when the whole chunk belongs to one trace. Else each trace has a `posthorn-trace` beside it: its traceparent and
// the positions of its ids in the message.

/** Which items belong to which trace, by position; the traces in the order of their first items. */
export type TracedItems = Map<SpanContext, number[]>;

export type Headers = {
  get(name: string): string;
  values(name: string): string[];
  append(name: string, value: string): void;
};

const OWN = "traceparent";
const SHARED = "posthorn-trace";

/** The traces of items, which are given in their order. Empty, and cheap, where none is recorded. */
export function tracedItems(items: readonly { readonly trace?: SpanContext | undefined }[]): TracedItems {
  const traced: TracedItems = new Map();
  items.forEach((item, position) => {
    if (item.trace === undefined) return;
    const positions = traced.get(item.trace);
    if (positions === undefined) traced.set(item.trace, [position]);
    else positions.push(position);
  });
  return traced;
}

/** `own` is the span of the publish, a child of the first trace. */
export function writeTraces(headers: Headers, own: SpanContext, traced: TracedItems, size: number): void {
  headers.append(OWN, format(own));
  const [[first, positions] = [own, []]] = traced;
  if (traced.size === 1 && positions.length === size) return;
  for (const [each, at] of traced) headers.append(SHARED, `${format(each === first ? own : each)} ${at.join(",")}`);
}

/** What `writeTraces` wrote. Anything else in the headers is passed over. */
export function readTraces(headers: Headers | undefined, size: number): TracedItems {
  const traced: TracedItems = new Map();
  if (headers === undefined) return traced;
  for (const value of headers.values(SHARED)) {
    const [parent = "", at = ""] = value.split(" ");
    const found = parse(parent);
    if (found !== undefined) traced.set(found, at.split(",").map(Number));
  }
  const own = traced.size > 0 ? undefined : parse(headers.get(OWN));
  if (own !== undefined)
    traced.set(
      own,
      Array.from({ length: size }, (_, position) => position),
    );
  return traced;
}

/**
 * Traces that rows were stored with, by their text. One that many rows are of is one object: work-spans.ts compares by
 * identity.
 */
export function storedTraces(
  rows: readonly { readonly trace: string | null }[],
): ReadonlyMap<string | null, SpanContext> {
  const traces = new Map<string | null, SpanContext>();
  for (const { trace } of rows) {
    const found = trace === null || traces.has(trace) ? undefined : parse(trace);
    if (found !== undefined) traces.set(trace, found);
  }
  return traces;
}

export function format({ traceId, spanId }: SpanContext): string {
  return `00-${traceId}-${spanId}-01`;
}

/** A recorded trace from elsewhere; undefined when it is not recorded, or not one. */
export function parse(traceparent: string): SpanContext | undefined {
  const found = traceparent === "" ? undefined : trace.getSpanContext(extractTrace({ traceparent }));
  return found !== undefined && (found.traceFlags & TraceFlags.SAMPLED) !== 0 ? found : undefined;
}
