import { defineConfig } from "vitest/config";

const UNIT = "test/**/*.unit.test.ts";

export default defineConfig({
  test: {
    environment: "node",
    pool: "forks",
    maxWorkers: 2, // The servers need their share of two cores.
    testTimeout: 30_000,
    hookTimeout: 60_000,
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
