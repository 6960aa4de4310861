import { relative } from "node:path";
import { BaseSequencer, type TestSpecification } from "vitest/node";

/** Files that take long wherever they run, the longest first. A new one is added when `npm test` shows it. */
const LONGEST = [
  "test/attack/stalls.test.ts",
  "test/fault/faults.test.ts",
  "test/attack/content.test.ts",
  "test/dev/services.test.ts",
  "test/browser/browser.test.ts",
  "test/fault/faults-here.test.ts",
  "test/store/retention.test.ts",
  "test/contract/every-rpc.test.ts",
  "test/auth/user-tokens.test.ts",
  "test/cli/start.test.ts",
  "test/stream/subscribe.test.ts",
  "test/interop/clients.test.ts",
];

/**
 * Begins with the files that take longest: begun last, one of them would be waited for alone. On a fresh checkout vitest
 * knows no durations and goes by the size of files, which says nothing about waiting.
 */
export class LongestFirst extends BaseSequencer {
  override async sort(files: TestSpecification[]): Promise<TestSpecification[]> {
    const sorted = await super.sort(files);
    return sorted.toSorted((a, b) => this.place(a) - this.place(b));
  }

  private place({ moduleId }: TestSpecification): number {
    const place = LONGEST.indexOf(relative(this.ctx.config.root, moduleId));
    return place === -1 ? LONGEST.length : place;
  }
}
