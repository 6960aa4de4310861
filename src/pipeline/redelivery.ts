// When a message that could not be handled is given out again, and when that is left to the reconciler.

/** A chunk that failed this often is handled alone, id by id, and at the last attempt ended. */
export const POISON_ATTEMPTS = 8;

/** Short enough for `nak(delay)`, which keeps the message among those awaiting an ack. */
export function retryDelay(attempt: number): number {
  return Math.min(200 * 2 ** Math.min(attempt - 1, 6), 10_000);
}

/** Shorter than the retries before it take, so that nothing is given back because everything fails for a while. */
const OTHERS_WORK_MS = 30_000;
/** After some ten minutes it goes back all the same. */
const LAST_ATTEMPT = 60;

/**
 * Whether a message has failed too often to stay on the queue, where everything lost behind it would be taken for
 * waiting. The rows say what is still to be done: the reconciler queues it again, and meanwhile finds the others.
 */
export function givesBack(attempt: number, sinceOthersWorkedMs: number): boolean {
  return attempt > POISON_ATTEMPTS && (sinceOthersWorkedMs < OTHERS_WORK_MS || attempt >= LAST_ATTEMPT);
}
