/** For work that begins before it is known what it will be, or that nobody waits for; else see `inTurn`. */
export type Slots = { take(): Promise<void>; give(): void };

/** So many slots, given out in the order of asking. */
export function fairSlots(size: number): Slots {
  let free = size;
  const asking: (() => void)[] = [];
  return {
    take() {
      if (free > 0) {
        free--;
        return Promise.resolve();
      }
      return new Promise((resolve) => asking.push(resolve));
    },
    give() {
      // Handed on, so that nobody who comes now gets in between.
      const next = asking.shift();
      if (next === undefined) free++;
      else next();
    },
  };
}

/**
 * Runs at most `size` pieces of work at a time; the others wait in the order they came. For what may come by the ten
 * thousand, and would take too much memory or be refused if it were all begun at once.
 */
export function inTurn(size: number): <T>(work: () => Promise<T>) => Promise<T> {
  const slots = fairSlots(size);
  return async (work) => {
    await slots.take();
    try {
      return await work();
    } finally {
      slots.give();
    }
  };
}
