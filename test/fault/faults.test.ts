import { expect, test } from "vitest";
import { freshServices } from "../support/services.ts";
import { faults } from "./faults.ts";
import { openLab } from "./lab/lab.ts";

// A short round of each fault. `npm run test:faults` runs long ones, with the seed that failed here too.

const SCALE = 0.02;
const seed = Math.floor(Math.random() * 1e9);

test.for(faults)("$name: $about", { timeout: 300_000 }, async (fault, { skip }) => {
  const lacking = await fault.lacks?.();
  if (lacking !== undefined) return skip(lacking);
  await using services = await freshServices();
  await using lab = openLab(services, () => undefined);
  const run = fault.run(lab, { seed, scale: SCALE });
  await expect(run, `npm run test:faults -- ${fault.name} --seed ${seed} --scale ${SCALE}`).resolves.toBeTypeOf(
    "object",
  );
});
