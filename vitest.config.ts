import { defineConfig } from "vitest/config";
import { LongestFirst } from "./test/support/longest-first.ts";

const UNIT = "test/**/*.unit.test.ts";

export default defineConfig({
  test: {
    environment: "node",
    pool: "forks",
    execArgv: ["--import", "./src/store/resolve-drizzle.ts"],
    maxWorkers: 2, // The servers need their share of two cores.
    maxConcurrency: 4, // Of tests that ask to run side by side within a file.
    sequence: { sequencer: LongestFirst },
    testTimeout: 90_000, // For a machine that is busy otherwise; nothing waits for it when all goes well.
    hookTimeout: 90_000,
    coverage: { provider: "v8", include: ["src/**/*.ts"], reporter: ["text-summary", "html", "json-summary"] },
    projects: [
      // Pure rules: no server is started for them.
      { extends: true, test: { name: "unit", include: [UNIT] } },
      // Everything else finds one Postgres, NATS and Redis running (see test/support).
      {
        extends: true,
        test: {
          name: "servers",
          include: ["test/**/*.test.ts"],
          exclude: [UNIT],
          globalSetup: ["test/support/global-setup.ts"],
        },
      },
    ],
  },
});
