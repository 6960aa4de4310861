/** What long work may take of a turn of the event loop, all of it together. */
const SLICE_MS = 2;

/**
 * For work on many items in one go: ask before each but the first, and wait for what is returned, if anything. All such
 * work of the process shares one slice of each turn of the event loop and takes it in the order of asking, so that what
 * others wait for, a Send or an event for a stream, never stands behind a batch of thousands.
 *
 * At module level because what is shared, the event loop, is the process's only one: a second clock would grant a second
 * slice of the same turn.
 */
export const breathe = breather(SLICE_MS);

export function breather(sliceMs: number): () => Promise<void> | undefined {
  /** When the slice of this turn began to be used. */
  let began: number | undefined;
  const waiting: (() => void)[] = [];

  function begin(): void {
    began = performance.now();
    setImmediate(() => {
      began = undefined;
      const next = waiting.shift();
      if (next === undefined) return;
      begin();
      next();
    });
  }

  return () => {
    if (began === undefined) begin();
    else if (performance.now() - began >= sliceMs) return new Promise((resolve) => waiting.push(resolve));
    return undefined;
  };
}

/** `map` for work that takes long on many, with breath taken in between. */
export async function mapInSlices<T, R>(items: readonly T[], work: (item: T, index: number) => R): Promise<R[]> {
  const results: R[] = [];
  for (const [index, item] of items.entries()) {
    const pause = index === 0 ? undefined : breathe();
    if (pause !== undefined) await pause;
    results.push(work(item, index));
  }
  return results;
}

/** Work that comes in steps, each short, and between them leaves off until it is asked to go on. */
export type Steps<T> = Generator<undefined, T, undefined>;

/** Takes the steps one after the other, with breath taken in between. */
export async function takeSteps<T>(steps: Steps<T>): Promise<T> {
  for (;;) {
    const step = steps.next();
    if (step.done) return step.value;
    const pause = breathe();
    if (pause !== undefined) await pause;
  }
}
