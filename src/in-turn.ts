/**
 * Runs at most `size` pieces of work at a time; the others wait in the order they came. For what may come by the ten
 * thousand, and would take too much memory or be refused if it were all begun at once.
 */
export function inTurn(size: number): <T>(work: () => Promise<T>) => Promise<T> {
  let running = 0;
  const waiting: (() => void)[] = [];
  return async (work) => {
    if (running >= size) await new Promise<void>((resolve) => waiting.push(resolve));
    else running++;
    try {
      return await work();
    } finally {
      // Handed on, so that nobody who comes now gets in between.
      const next = waiting.shift();
      if (next === undefined) running--;
      else next();
    }
  };
}
