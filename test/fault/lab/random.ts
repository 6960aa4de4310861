/** Randomness that a seed repeats: the same seed, the same choices in the same order. */
export type Random = {
  /** From 0 to below 1. */
  fraction(): number;
  /** A whole number from `min` to `max`, both included. */
  int(min: number, max: number): number;
  pick<T>(list: readonly T[]): T;
  /** True this often: 0 never, 1 always. */
  chance(probability: number): boolean;
  /** Randomness of its own for something that runs beside others, whose turns would otherwise mix with ours. */
  fork(): Random;
};

export function seededRandom(seed: number): Random {
  let state = seed >>> 0;
  // mulberry32: 32 bits of state are plenty for choosing when to break what.
  const fraction = () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = state;
    mixed = Math.imul(mixed ^ (mixed >>> 15), mixed | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
  const int = (min: number, max: number) => min + Math.floor(fraction() * (max - min + 1));
  return {
    fraction,
    int,
    pick<T>(list: readonly T[]): T {
      if (list.length === 0) throw new Error("nothing to choose from");
      return list[int(0, list.length - 1)] as T;
    },
    chance: (probability) => fraction() < probability,
    fork: () => seededRandom(int(0, 2 ** 31 - 1)),
  };
}
