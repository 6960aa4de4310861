import { readFile, rm } from "node:fs/promises";
import { join } from "node:path";
import { exitCode, type Result } from "./checks.ts";

/** The part of vitest's JSON report that is counted. */
export type VitestReport = {
  testResults: {
    name: string;
    status: string;
    /** `meta.lacks`: what a test that was skipped needs and did not find here. */
    assertionResults: { fullName: string; status: string; meta?: { lacks?: string } }[];
  }[];
};

/** Runs vitest with these arguments and counts its tests. */
export async function runVitest(root: string, args: readonly string[]): Promise<Result> {
  const file = join(root, ".cache/vitest.json");
  await rm(file, { force: true });
  const reporters = ["--reporter=default", "--reporter=json", `--outputFile.json=${file}`];
  const code = await exitCode(root, "vitest", ["run", "--passWithNoTests", ...reporters, ...args]);
  const report = await readFile(file, "utf8").then(
    (text) => JSON.parse(text) as VitestReport,
    () => undefined,
  );
  return countTests(report, code);
}

/**
 * Counts what vitest reported. A file that failed without a failing test (it does not load, or a hook threw), and a run that
 * failed without a failing file (an unhandled rejection, no servers), count as one failed test: nothing that went wrong
 * may end in `0 failed`.
 */
export function countTests(report: VitestReport | undefined, code: number): Result {
  const result: Result = { passed: 0, failed: 0, skipped: [] };
  for (const file of report?.testResults ?? []) {
    let failedHere = 0;
    for (const test of file.assertionResults) {
      if (test.status === "passed") result.passed++;
      else if (test.status === "failed") failedHere++;
      else
        result.skipped.push(test.meta?.lacks === undefined ? test.fullName : `${test.fullName} (${test.meta.lacks})`);
    }
    if (file.status === "failed" && failedHere === 0) failedHere = 1;
    result.failed += failedHere;
  }
  if (code !== 0 && result.failed === 0) result.failed = 1;
  return result;
}
