import { expect, type TestContext } from "vitest";
import { freshServices } from "../support/services.ts";
import { type FaultTest, openLab } from "./lab/lab.ts";

const SCALE = 0.01;
const seed = Math.floor(Math.random() * 1e9);

/** A short round of a fault. `npm run test:faults` runs long ones, with the seed that failed here too. */
export async function shortRound(fault: FaultTest, { skip }: TestContext): Promise<void> {
  const lacking = await fault.lacks?.();
  if (lacking !== undefined) return skip(lacking);
  await using services = await freshServices();
  await using lab = openLab(services, () => undefined);
  const run = fault.run(lab, { seed, scale: SCALE });
  await expect(run, `npm run test:faults -- ${fault.name} --seed ${seed} --scale ${SCALE}`).resolves.toBeTypeOf(
    "object",
  );
}
