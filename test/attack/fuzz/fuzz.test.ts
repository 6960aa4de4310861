import { expect, inject, test } from "vitest";
import { METHODS } from "../../support/contract.ts";
import { freshServices } from "../../support/services.ts";
import { startPosthorn } from "../posthorn-process.ts";
import { fuzz, nameOf, WITH_CHANNELS } from "./fuzz.ts";

// A short look, the same every time, so that a failure is of the change at hand; `npx node test/attack/fuzz/main.ts`
// looks longer, and elsewhere each time.
const seed = Number(process.env.POSTHORN_FUZZ_SEED ?? 1);
const runs = Number(process.env.POSTHORN_FUZZ_RUNS ?? 120);

/** Methods that may never get past an error, and why; test/contract asks each of them something that is answered. */
const MAY_FAIL: Readonly<Record<string, string>> = {
  "ScheduleService.UpdateSchedule": "a change of several parts at once has to fit what is stored as well",
};

test(`every method is called, and keeps its word under random calls (POSTHORN_FUZZ_SEED=${seed})`, async () => {
  expect(inject("databaseUrl")).toBeTruthy();
  await using services = await freshServices();
  await using posthorn = await startPosthorn(services, {}, WITH_CHANNELS);
  const before = await posthorn.residentMb();
  const withinMs = process.env.POSTHORN_FUZZ_RUNS === undefined ? { withinMs: 6000 } : {};
  const report = await fuzz(posthorn, { seed, runs, ...withinMs });
  expect(report.findings).toEqual([]);
  // It reached the handlers of all of them, and each did what it was asked at least once.
  expect(Object.keys(report.byMethod).sort()).toEqual(METHODS.map(nameOf).sort());
  const failed = Object.entries(report.byMethod).flatMap(([name, count]) => (count > 0 ? [] : [name]));
  expect(failed.filter((name) => MAY_FAIL[name] === undefined)).toEqual([]);
  expect(posthorn.exited()).toBe(false);
  expect((await posthorn.residentMb()) - before).toBeLessThan(400);
  // A defect that was told as something else stands in the log.
  expect(posthorn.said().filter((line) => /"level":"(error|fatal)"/.test(line))).toEqual([]);
}, 180_000);
