import { context, ROOT_CONTEXT, type Span, type SpanContext, SpanStatusCode, trace } from "@opentelemetry/api";
import { ATTR, type SpanShape } from "./conventions.ts";

// How a trace follows work that many callers share.
//
//     call A ──▶ commit ──▶ publish ──▶ process ──▶ stream          trace A
//                  ╎ links                 ╎ links
//     call B ──▶ commit ──────────────▶ process ──▶ stream          trace B
//
// One commit and one chunk carry the work of many. Each of their traces gets a span of it, so that each is complete by
// itself; the work runs within the first of them, and the first and the others link to each other. Only traces that are
// recorded travel: what is not sampled costs a look at the active context, and nothing after that.

/** The span that the running code belongs to, if it is recorded: what is to travel with the work it gives away. */
export function recordedTrace(): SpanContext | undefined {
  const span = trace.getActiveSpan();
  return span?.isRecording() === true ? span.spanContext() : undefined;
}

/** What follows in a trace is a child of this: the trace's span of the work, in place of the one it came with. */
export type NextIn = (from: SpanContext | undefined) => SpanContext | undefined;

/**
 * Does the work, within a span in each of the traces it is for. A failure is written to all of them and thrown on.
 * `traces` are compared by identity; undefined stands for work that is not recorded.
 */
export async function withWorkSpans<T>(
  shape: () => SpanShape,
  traces: Iterable<SpanContext | undefined>,
  work: (next: NextIn) => Promise<T>,
): Promise<T> {
  const parents = new Set(traces);
  parents.delete(undefined);
  if (parents.size === 0) return work(() => undefined);
  const spans = openSpans(shape(), parents as Set<SpanContext>);
  const [first] = spans.values();
  const next: NextIn = (from) => (from === undefined ? undefined : spans.get(from)?.spanContext());
  try {
    return await context.with(first === undefined ? ROOT_CONTEXT : trace.setSpan(ROOT_CONTEXT, first), () =>
      work(next),
    );
  } catch (error) {
    for (const span of spans.values()) markFailed(span, error);
    throw error;
  } finally {
    for (const span of spans.values()) span.end();
  }
}

/** Begins a trace of its own for work that nobody called for, as the sampler decides. */
export function withRootSpan<T>(shape: SpanShape, work: (span: Span) => Promise<T>): Promise<T> {
  return withSpanIn(undefined, shape, work);
}

/** Goes on within the trace that the running code belongs to; without a span where that is not recorded. */
export function withStepSpan<T>(shape: () => SpanShape, work: () => Promise<T>): Promise<T> {
  const parent = recordedTrace();
  return parent === undefined ? work() : withSpanIn(parent, shape(), work);
}

/** Goes on with a trace that has come from elsewhere; without one it begins its own. */
export async function withSpanIn<T>(
  parent: SpanContext | undefined,
  shape: SpanShape,
  work: (span: Span) => Promise<T>,
): Promise<T> {
  const span = parent === undefined ? rootSpan(shape) : spanIn(parent, shape);
  try {
    return await context.with(trace.setSpan(ROOT_CONTEXT, span), () => work(span));
  } catch (error) {
    markFailed(span, error);
    throw error;
  } finally {
    span.end();
  }
}

/** A span of a trace that has come from elsewhere. The caller ends it. */
export function spanIn(parent: SpanContext, { name, ...options }: SpanShape): Span {
  return trace.getTracer("posthorn").startSpan(name, options, trace.setSpanContext(ROOT_CONTEXT, parent));
}

function rootSpan({ name, ...options }: SpanShape): Span {
  return trace.getTracer("posthorn").startSpan(name, { ...options, root: true });
}

function openSpans(shape: SpanShape, parents: ReadonlySet<SpanContext>): Map<SpanContext, Span> {
  const spans = new Map<SpanContext, Span>();
  for (const parent of parents) spans.set(parent, spanIn(parent, shape));
  const [first, ...others] = spans.values();
  for (const other of others) {
    first?.addLink({ context: other.spanContext() });
    if (first !== undefined) other.addLink({ context: first.spanContext() });
  }
  return spans;
}

function markFailed(span: Span, error: unknown): void {
  span.setStatus({ code: SpanStatusCode.ERROR });
  if (error instanceof Error) span.setAttribute(ATTR.errorType, error.name);
}
