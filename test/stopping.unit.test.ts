import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { type StoppingDeps, stopping } from "#src/stopping.ts";

beforeEach(() => void vi.useFakeTimers());
afterEach(() => void vi.useRealTimers());

const wait = (ms: number) => new Promise<void>((resolve) => setTimeout(resolve, ms));
const never = () => new Promise<void>(() => undefined);
/** As the ports do: no longer than they may. */
const port = (callsTakeMs: number) => ({ drain: (deadlineMs: number) => wait(Math.min(callsTakeMs, deadlineMs)) });

/** What is done when, in milliseconds from the beginning. */
function going(deps: Partial<StoppingDeps>) {
  const startedAt = performance.now();
  const done: string[] = [];
  const say = (what: string) => done.push(`${what} after ${Math.round(performance.now() - startedAt)} ms`);
  const { stop, drain } = stopping({
    withinMs: 15_000,
    began: () => say("begun"),
    ports: [port(0), port(0)],
    tellStreams: async () => void say("told"),
    close: async () => void say("closed"),
    ...deps,
  });
  return { done, say, drain, stop: () => stop().then(() => void say("stopped")) };
}

test("who has nothing to finish goes at once, and once", async () => {
  const { done, drain, stop } = going({});
  const all = Promise.all([drain(), stop(), stop(), drain()]);
  await vi.advanceTimersByTimeAsync(0);
  await all;
  expect(done).toEqual(["begun", "told", "closed", "stopped", "stopped"].map((what) => `${what} after 0 ms`));
});

test.each([
  ["calls that do not end", { ports: [port(60_000)], close: () => wait(100) }, 10_100],
  ["a server that does not answer", { close: never }, 13_500],
  ["both", { ports: [port(60_000), port(3)], close: never }, 13_500],
  [
    "both, with the time of a test: closing and ending have their five seconds",
    { withinMs: 300, ports: [port(999)], close: never },
    3700,
  ],
])("%s keep the process no longer than it may take", async (_, deps, stoppedAfterMs) => {
  const { done, stop } = going(deps);
  void stop();
  await vi.advanceTimersByTimeAsync(60_000);
  expect(done).toEqual(["begun after 0 ms", "told after 0 ms", `stopped after ${stoppedAfterMs} ms`]);
});

test.each([
  ["a port that never closes", { ports: [{ drain: never }], close: never }, 13_500],
  ["streams that are told for ever", { tellStreams: never, close: never }, 13_500],
  [
    "a port that never closes, and servers that do in time",
    { ports: [{ drain: never }], close: () => wait(100) },
    11_100,
  ],
])("%s: the process ends in time", async (_, deps, stoppedAfterMs) => {
  const { done, drain, stop } = going(deps);
  // As `serve` does: it goes out of service first.
  void drain().then(stop);
  await vi.advanceTimersByTimeAsync(60_000);
  expect(done.at(-1)).toBe(`stopped after ${stoppedAfterMs} ms`);
});

test("ports that cut a little late take it from the time for closing, and not from whoever waits for the process", async () => {
  const { done, stop } = going({ ports: [{ drain: (deadlineMs) => wait(deadlineMs + 700) }], close: never });
  void stop();
  await vi.advanceTimersByTimeAsync(60_000);
  expect(done.at(-1)).toBe("stopped after 13500 ms");
});

test("streams are told with time left to end before the ports cut what is open", async () => {
  let toldWithinMs = 0;
  const cutAfterMs: number[] = [];
  const tellStreams = async (ms: number) => {
    toldWithinMs = ms;
  };
  const ports = [{ drain: async (ms: number) => void cutAfterMs.push(ms) }];
  await going({ tellStreams, ports }).stop();
  expect([toldWithinMs, ...cutAfterMs]).toEqual([8_000, 10_000]);
});
