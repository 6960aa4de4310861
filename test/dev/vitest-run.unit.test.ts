import { expect, test } from "vitest";
import { countTests } from "#src/dev/vitest-run.ts";

const file = (status: string, ...statuses: string[]) => ({
  name: "a.test.ts",
  status,
  assertionResults: statuses.map((each, i) => ({ fullName: `test ${i}`, status: each })),
});

test("tests are counted over all files, and what did not run is named", () => {
  const report = { testResults: [file("passed", "passed", "skipped"), file("failed", "passed", "failed", "todo")] };
  expect(countTests(report, 1)).toEqual({ passed: 2, failed: 1, skipped: ["test 1", "test 2"] });
});

test("what a skipped test lacks is said with its name", () => {
  const skipped = { fullName: "disk-full", status: "skipped", meta: { lacks: "no disk of our own" } };
  const report = { testResults: [{ ...file("passed", "passed"), assertionResults: [skipped] }] };
  expect(countTests(report, 0).skipped).toEqual(["disk-full (no disk of our own)"]);
});

test("a file that fails outside its tests counts as one failure", () => {
  expect(countTests({ testResults: [file("failed"), file("failed", "passed")] }, 1)).toMatchObject({ failed: 2 });
});

test("a run that fails without a failing test does not end in `0 failed`", () => {
  expect(countTests({ testResults: [file("passed", "passed")] }, 1)).toMatchObject({ passed: 1, failed: 1 });
  expect(countTests(undefined, 1)).toMatchObject({ passed: 0, failed: 1 });
});
