import { join } from "node:path";
import { nodeChild } from "./child.ts";
import type { Lab } from "./lab.ts";

/** Runs one of yardsticks/ that measures by itself, and returns its figures. */
export async function yardstick(
  lab: Lab,
  name: string,
  job: object,
): Promise<{ rate: number; p50Ms: number; p99Ms: number }> {
  lab.say(`measuring ${name}`);
  const script = join(import.meta.dirname, "yardsticks", `${name}.ts`);
  await using child = nodeChild(script, { name, say: lab.say, signal: lab.signal });
  child.send(job);
  const { rate, p50Ms, p99Ms } = await child.next("result");
  return { rate: Number(rate), p50Ms: Number(p50Ms), p99Ms: Number(p99Ms) };
}
