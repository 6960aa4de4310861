/**
 * Runs at most `size` pieces of work at a time; the others wait in the order they came. For what may come by the ten
 * thousand, and would take too much memory or be refused if it were all begun at once.
 */
export function inTurn(size: number): <T>(work: () => Promise<T>) => Promise<T> {
  let free = size;
  const asking: (() => void)[] = [];
  return async (work) => {
    if (free > 0) free--;
    else await new Promise<void>((resolve) => asking.push(resolve));
    try {
      return await work();
    } finally {
      // Handed on, so that nobody who comes now gets in between.
      const next = asking.shift();
      if (next === undefined) free++;
      else next();
    }
  };
}
