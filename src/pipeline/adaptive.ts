import type { Pressure } from "./memory.ts";

/** Between which a size may move, and how long one piece of work of that size may take. */
export type SizeBounds = { readonly min: number; readonly max: number; readonly targetMs: number };

/** What one piece of work told. */
export type Signals = {
  /** How many items it had. */
  readonly items: number;
  /** How many waited behind it. */
  readonly backlog: number;
  /** How long it took. */
  readonly tookMs: number;
  readonly memory: Pressure;
};

const GROW = 1.5;
const SHRINK = 0.5;

/**
 * The size of the next piece of work. Halved when the last took longer than it may or memory is short, and the least there
 * may be when there is none left; else half as much again while more than a piece waits and the larger one would be done in
 * time. A piece much smaller than it might have been says nothing about the size: something else made it slow.
 *
 * Up gently and down at once, because too small costs some speed, and too large the memory or the turn of others.
 */
export function next(size: number, { items, backlog, tookMs, memory }: Signals, bounds: SizeBounds): number {
  if (memory === "over") return bounds.min;
  const isTelling = items * 2 >= size;
  if (memory === "tight" || (isTelling && tookMs > bounds.targetMs)) return within(size * SHRINK, bounds);
  const isWanted = backlog > size && tookMs * GROW <= bounds.targetMs;
  return within(isWanted ? Math.ceil(size * GROW) : size, bounds);
}

function within(size: number, { min, max }: SizeBounds): number {
  return Math.min(max, Math.max(min, Math.floor(size)));
}

/** A size that follows the work done with it. */
export type AdaptiveSize = {
  now(): number;
  /** Call after each piece of work. */
  done(signals: Omit<Signals, "memory">): void;
};

/** Begins at the least, and is told of every size, the first included. */
export function adaptiveSize(bounds: SizeBounds, memory: () => Pressure, told: (size: number) => void): AdaptiveSize {
  let size = bounds.min;
  told(size);
  return {
    // Memory may have become short since the last piece was done.
    now: () => (memory() === "over" ? bounds.min : size),
    done(signals) {
      const before = size;
      size = next(size, { ...signals, memory: memory() }, bounds);
      if (size !== before) told(size);
    },
  };
}
