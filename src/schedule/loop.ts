import type { Logger } from "#src/telemetry/logger.ts";

export type Next = { more: boolean; sooner?: Promise<void> | undefined };

/**
 * Runs a job again and again until disposed: at once when it says there is more, else after `intervalMs`, spread a little
 * so that processes do not tick together, or when `sooner` comes before that. A failure is logged and tried again after the interval. Disposing waits for
 * the run at hand.
 */
export function startLoop(
  name: string,
  intervalMs: number,
  job: (signal: AbortSignal) => Promise<Next>,
  log: Logger,
  random: () => number,
): AsyncDisposable {
  const stopping = new AbortController();
  const { signal } = stopping;
  const running = (async () => {
    while (!signal.aborted) {
      let next: Next = { more: false };
      try {
        next = await job(signal);
      } catch (error) {
        if (!signal.aborted) log.warn({ err: error, job: name }, "a periodic job failed; it is tried again");
      }
      if (!next.more) await pause(intervalMs * (0.9 + 0.2 * random()), signal, next.sooner);
    }
  })();
  return {
    async [Symbol.asyncDispose]() {
      stopping.abort();
      await running;
    },
  };
}

function pause(ms: number, signal: AbortSignal, sooner: Promise<void> | undefined): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) return resolve();
    const timer = setTimeout(done, ms);
    sooner?.then(done);
    function done(): void {
      clearTimeout(timer);
      signal.removeEventListener("abort", done);
      resolve();
    }
    signal.addEventListener("abort", done, { once: true });
  });
}
