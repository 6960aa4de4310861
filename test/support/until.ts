/** Asks again until the answer is good, for what nothing announces; fails with the last answer. */
export async function until<T>(ask: () => Promise<T>, good: (answer: T) => boolean, withinMs = 45_000): Promise<T> {
  const deadline = performance.now() + withinMs;
  for (;;) {
    const answer = await ask();
    if (good(answer)) return answer;
    if (performance.now() > deadline) {
      throw new Error(
        `it did not become so within ${withinMs} ms; last: ${JSON.stringify(answer, plain)?.slice(0, 500)}`,
      );
    }
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

function plain(_: string, value: unknown): unknown {
  return typeof value === "bigint" ? value.toString() : value;
}
