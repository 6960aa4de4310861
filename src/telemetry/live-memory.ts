import { PerformanceObserver } from "node:perf_hooks";
import { getHeapStatistics, setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";

/**
 * Tells after each full collection of garbage how many bytes it left alive, heap and buffers together, until disposed.
 * `collect` does one now. Everything stands still meanwhile: some 100 ms for each 100 MB.
 */
export type MemorySource = (collected: (live: number) => void) => Disposable & { collect(): void };

/**
 * V8 frees buffers on a thread of its own after the pause; those that are made meanwhile are few. `external` has them until
 * the collection after.
 */
const SWEPT_MS = 100;

/** As the kinds of `perf_hooks.constants`. */
const MAJOR = 4;

/** The memory of this process, as V8 tells it. */
export const watchLiveMemory: MemorySource = (collected) => {
  let heapUsed = 0;
  let sweeping: NodeJS.Timeout | undefined;
  const observer = new PerformanceObserver((list) => {
    // Which Node has, and its types do not know.
    const details = list.getEntries().map((entry) => (entry as { detail?: { kind?: number } }).detail);
    if (!details.some((detail) => detail?.kind === MAJOR)) return;
    heapUsed = process.memoryUsage().heapUsed;
    sweeping ??= setTimeout(() => {
      sweeping = undefined;
      collected(heapUsed + process.memoryUsage().arrayBuffers);
    }, SWEPT_MS).unref();
  });
  observer.observe({ entryTypes: ["gc"] });
  let gc: (() => void) | undefined;
  return {
    collect() {
      gc ??= collector();
      gc();
    },
    [Symbol.dispose]() {
      observer.disconnect();
      clearTimeout(sweeping);
    },
  };
};

/** As `node --expose-gc` has it; the only way there is to one full collection, and not the several that the inspector does. */
function collector(): () => void {
  setFlagsFromString("--expose-gc");
  const gc = runInNewContext("gc") as () => void;
  setFlagsFromString("--no-expose-gc");
  return gc;
}

/** What the heap may grow to before the process is ended, in bytes. In a container Node takes it from its limit. */
export function heapLimitBytes(): number {
  return getHeapStatistics().heap_size_limit;
}
