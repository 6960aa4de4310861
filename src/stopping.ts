/** A port; see rpc/listening.ts. */
type Port = { drain(deadlineMs: number): Promise<void> };

export type StoppingDeps = {
  /** Time for all of it, from the first call on. */
  withinMs: number;
  /** Said once, when it begins. */
  began(): void;
  ports: readonly Port[];
  /** Tells every stream to go elsewhere, spread over this time at most. */
  tellStreams(withinMs: number): Promise<void>;
  /** Closes what stands behind the ports. */
  close(): Promise<void>;
};

/** Both as often as one likes: each is done once. */
export type Stopping = {
  /** Goes out of service without failing anybody. */
  drain(): Promise<void>;
  /** The same, and closes everything. */
  stop(): Promise<void>;
};

/** Kept of the time, a third at most, for closing and ending; and these may take that long in any case. */
const CLOSE_MS = 5_000;

/** Of that, what the process itself needs to end on a machine that is busy, so that it is gone in time. */
const END_MS = 1_500;

/** Of that, what ports have for cutting what is open when the time of calls is over. */
const CUT_MS = 1_000;

/** Part of the time that calls have, in which all streams are told: those that are told last need some to end in. */
const TELL = { part: 4, of: 5 };

/**
 * How a process goes, with a limit to every step, so that nothing that is gone or stuck keeps it:
 *
 *     ports refuse new calls; streams are told   ──▶   calls that are open are cut   ──▶   what is not closed ends
 *     to go elsewhere, all in the first four           all the rest closes                 with the process
 *     fifths; other calls finish
 *     0                                                withinMs - 5 s, or two thirds       withinMs - 1.5 s
 */
export function stopping({ withinMs, began, ports, tellStreams, close }: StoppingDeps): Stopping {
  const serveMs = Math.max(withinMs - CLOSE_MS, (withinMs * 2) / 3);
  let startedAt = 0;
  let drained: Promise<void> | undefined;
  let closed: Promise<void> | undefined;
  const goOut = async () => {
    startedAt = performance.now();
    began();
    const closing = ports.map((port) => port.drain(serveMs));
    const out = Promise.all([tellStreams((serveMs * TELL.part) / TELL.of), ...closing]);
    await inTime(out, serveMs + CUT_MS);
  };
  const drain = () => {
    drained ??= goOut();
    return drained;
  };
  const closeInTime = async () => {
    await drain();
    const endsAt = startedAt + Math.max(withinMs, serveMs + CLOSE_MS) - END_MS;
    await inTime(close(), endsAt - performance.now());
  };
  return {
    drain,
    stop() {
      closed ??= closeInTime();
      return closed;
    },
  };
}

/** Settles like `work`, or resolves when the time is over. */
async function inTime(work: Promise<unknown>, ms: number): Promise<void> {
  const over = Promise.withResolvers<void>();
  const timer = setTimeout(over.resolve, ms).unref();
  await Promise.race([work, over.promise]).finally(() => clearTimeout(timer));
}
