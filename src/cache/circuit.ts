/**
 * Spares callers the wait for a Redis that does not answer: after a failure it is left alone for a while, then one caller
 * tries it again, and the others follow when it has answered.
 */
export type Circuit = {
  /** Does `work`, or answers undefined when it fails or Redis is left alone. Never throws. */
  attempt<T>(work: () => Promise<T>): Promise<T | undefined>;
  readonly closed: boolean;
};

export type CircuitOptions = {
  /** Whether there is a connection at all; without one nothing is tried. */
  up: () => boolean;
  /** Ms, from any start. */
  clock: () => number;
  /** Called on the first failure and on the first success after it. */
  onChange?: (state: "failed" | "recovered", error?: unknown) => void;
  /** How long it is left alone after a failure. */
  restMs?: number;
};

export function circuit({ up, clock, onChange, restMs = 500 }: CircuitOptions): Circuit {
  let failedAt: number | undefined;
  let trying = false;
  const failed = (error?: unknown) => {
    const first = failedAt === undefined;
    failedAt = clock();
    if (first) onChange?.("failed", error);
  };
  return {
    get closed() {
      return failedAt === undefined;
    },
    async attempt(work) {
      if (!up()) {
        failed();
        return undefined;
      }
      if (failedAt !== undefined) {
        // A clock that was set back must not keep it open.
        if (trying || Math.abs(clock() - failedAt) < restMs) return undefined;
        trying = true;
      }
      try {
        const result = await work();
        if (failedAt !== undefined) onChange?.("recovered");
        failedAt = undefined;
        return result;
      } catch (error) {
        failed(error);
        return undefined;
      } finally {
        trying = false;
      }
    },
  };
}
