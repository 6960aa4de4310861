import { expect, inject, test } from "vitest";
import { freshServices } from "../../support/services.ts";
import { startPosthorn } from "../posthorn-process.ts";
import { fuzz } from "./fuzz.ts";

// A short look, the same every time, so that a failure is of the change at hand; `npx node test/attack/fuzz/main.ts`
// looks longer, and elsewhere each time.
const seed = Number(process.env.POSTHORN_FUZZ_SEED ?? 1);
const runs = Number(process.env.POSTHORN_FUZZ_RUNS ?? 120);

test(`every method keeps its word under random calls (POSTHORN_FUZZ_SEED=${seed})`, async () => {
  expect(inject("databaseUrl")).toBeTruthy();
  await using services = await freshServices();
  await using posthorn = await startPosthorn(services);
  const before = await posthorn.residentMb();
  const withinMs = process.env.POSTHORN_FUZZ_RUNS === undefined ? { withinMs: 15_000 } : {};
  const report = await fuzz(posthorn, { seed, runs, ...withinMs });
  expect(report.findings).toEqual([]);
  // It reached the handlers, and they answered.
  expect(report.calls).toBeGreaterThan(20);
  expect(Object.keys(report.byOutcome)).toContain("0");
  expect(posthorn.exited()).toBe(false);
  expect((await posthorn.residentMb()) - before).toBeLessThan(400);
  // A defect that was told as something else stands in the log.
  expect(posthorn.said().filter((line) => /"level":"(error|fatal)"/.test(line))).toEqual([]);
}, 180_000);
