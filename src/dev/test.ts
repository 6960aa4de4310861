// `npm test` and, with --quick, `npm run check`: runs every check and ends with `N passed, N failed` alone on a line. Other
// arguments go to vitest. Whatever is skipped is named before that line.
import { join } from "node:path";
import { contractKept, generatedIsCurrent, program, type Result } from "./checks.ts";
import { runVitest } from "./vitest-run.ts";

const root = join(import.meta.dirname, "../..");
const quick = process.argv.includes("--quick");
const forVitest = process.argv.slice(2).filter((argument) => argument !== "--quick");

const checks: [name: string, run: () => Promise<Result>][] = [
  ["generated code is current", () => generatedIsCurrent(root)],
  ["types", () => program(root, "tsc", ["--noEmit"])],
  ["lint", () => program(root, "biome", ["check", "--error-on-warnings", "."])],
  ["contract lint", () => program(root, "buf", ["lint"])],
  ...(quick ? [] : [["contract keeps its promises", () => contractKept(root)] satisfies (typeof checks)[number]]),
  ["tests", () => runVitest(root, [...(quick ? ["--project", "unit"] : []), ...forVitest])],
];

let passed = 0;
let failed = 0;
const skipped: string[] = [];
for (const [name, run] of checks) {
  console.log(`\n── ${name}`);
  const began = performance.now();
  const result = await run();
  const seconds = ((performance.now() - began) / 1000).toFixed(1);
  console.log(`${result.failed > 0 ? "FAILED" : result.passed > 0 ? "ok" : "skipped"}: ${name} (${seconds} s)`);
  passed += result.passed;
  failed += result.failed;
  skipped.push(...result.skipped);
}

console.log();
for (const each of skipped) console.log(`skipped: ${each}`);
console.log(`${passed} passed, ${failed} failed`);
process.exitCode = failed > 0 ? 1 : 0;
