// What every child process of a benchmark does on its side: see child.ts.
import { createInterface } from "node:readline";
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";

export function tell(event: string, fields: object = {}): void {
  process.stdout.write(`${JSON.stringify({ event, ...fields })}\n`);
}

/**
 * Hands the first line to `work` and further ones to what that returns. When standard input ends, so does the process, after
 * `close`. A throw is told as `failed`.
 */
export function serveJob<Job>(
  work: (
    job: Job,
    closing: (close: () => Promise<void>) => void,
  ) => Promise<((message: object) => Promise<void>) | void>,
): void {
  const closes: (() => Promise<void>)[] = [];
  let following: Promise<((message: object) => Promise<void>) | void> | undefined;
  const fail = (error: unknown) => {
    tell("failed", { message: error instanceof Error ? error.message || error.name : String(error) });
    process.exitCode = 1;
  };
  const lines = createInterface({ input: process.stdin });
  lines.on("line", (line) => {
    const message = JSON.parse(line) as object;
    if (following === undefined) {
      following = work(message as Job, (close) => closes.unshift(close));
      following.catch(fail);
    } else {
      following.then((next) => next?.(message)).catch(fail);
    }
  });
  lines.on("close", async () => {
    for (const close of closes) await close().catch(fail);
    process.exit();
  });
}

/** How fast something goes, done by `callers` one after the other: for a while unmeasured, then measured. */
export async function measure(
  { callers, warmupMs, measureMs }: { callers: number; warmupMs: number; measureMs: number },
  once: (caller: number) => Promise<number>,
): Promise<{ rate: number; p50Ms: number; p99Ms: number }> {
  const from = performance.now() + warmupMs;
  const to = from + measureMs;
  const times: number[] = [];
  let done = 0;
  await Promise.all(
    Array.from({ length: callers }, async (_, caller) => {
      for (let began = performance.now(); began < to; ) {
        const amount = await once(caller);
        const ended = performance.now();
        if (began >= from && ended <= to) times.push(ended - began);
        if (ended >= from && ended <= to) done += amount;
        began = ended;
      }
    }),
  );
  times.sort((a, b) => a - b);
  const quantile = (q: number) => times[Math.min(Math.ceil(q * times.length) - 1, times.length - 1)] ?? 0;
  return { rate: (done / measureMs) * 1000, p50Ms: quantile(0.5), p99Ms: quantile(0.99) };
}

/** So that the memory a process has says what it holds, and not what it has let go and not yet collected. */
export function collectGarbage(): undefined {
  setFlagsFromString("--expose-gc");
  const collect = runInNewContext("gc") as () => void;
  for (let i = 0; i < 3; i++) collect();
}
