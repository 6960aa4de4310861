import type { TestContext } from "vitest";
import { freshServices } from "../support/services.ts";
import { type FaultTest, openLab } from "./lab/lab.ts";

declare module "vitest" {
  interface TaskMeta {
    /** For the list of skipped tests: the reason given to `skip` is not in vitest's report. */
    lacks?: string;
  }
}

const SCALE = 0.01;
const seed = Math.floor(Math.random() * 1e9);
/** Of what was done before a round failed. */
const LAST_WORDS = 8;

/** A short round of a fault. `npm run test:faults` runs long ones, with the seed that failed here too. */
export async function shortRound(fault: FaultTest, { task, skip, expect }: TestContext): Promise<void> {
  const lacking = await fault.lacks?.();
  if (lacking !== undefined) {
    task.meta.lacks = lacking;
    return skip(lacking);
  }
  await using services = await freshServices();
  const said: string[] = [];
  await using lab = openLab(services, (line) => void said.push(line));
  const facts = await fault.run(lab, { seed, scale: SCALE }).catch((error: unknown) => {
    const repeat = `npm run test:faults -- ${fault.name} --seed ${seed} --scale ${SCALE}`;
    throw new Error([`${repeat}: ${error}`, ...said.slice(-LAST_WORDS)].join("\n"), { cause: error });
  });
  expect(facts).toBeTypeOf("object");
}
