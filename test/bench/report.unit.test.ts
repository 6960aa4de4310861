import { expect, test } from "vitest";
import { jsonOf, linesOf, type Report } from "./report.ts";
import { ratiosOf, reached, type Scenario } from "./scenario.ts";

const scenario: Scenario = {
  name: "accept",
  about: "unary Send",
  compared: { figure: "rate", better: "more" },
  goals: [{ figure: "rate", better: "more", bar: 5_000, aim: 8_000 }],
  run: () => Promise.reject(new Error("not run here")),
};

const report = (change: Partial<Report> = {}): Report => ({
  scenario: "accept",
  machine: { cores: 2, node: "24.0.0", postgres: "18.4", nats: "2.9.10", redis: "7.0.15" },
  client: "go",
  seconds: 10,
  adjusted: {},
  date: "2026-01-01T00:00:00.000Z",
  figures: { rate: 6_210.4, p50Ms: 9.8765, p99Ms: 18.2 },
  peers: { "grpc-echo": { rate: 27_000 }, "socket-stack": { skipped: "no registry" } },
  ratios: { "grpc-echo.rate": 0.23 },
  faults: [],
  ...change,
});

test("a goal is reached from its own side", () => {
  const less = { figure: "p99Ms", better: "less", bar: 50, aim: 15 } as const;
  expect([10, 15, 16, 50, 51].map((value) => reached(less, value))).toEqual(["aim", "aim", "bar", "bar", "neither"]);
  const [more] = scenario.goals;
  expect([4_999, 5_000, 8_000].map((value) => more && reached(more, value))).toEqual(["neither", "bar", "aim"]);
  expect(reached(less, undefined)).toBe("neither");
});

test("ratios are ours by theirs, of the peers that were measured", () => {
  const peers = { half: { rate: 200 }, other: { p99Ms: 3 }, gone: { skipped: "not here" }, nothing: { rate: 0 } };
  expect(ratiosOf(["rate"], { rate: 100 }, peers)).toEqual({ "half.rate": 0.5 });
});

test("JSON has our figures at its top and the same of each peer", () => {
  expect(jsonOf(scenario, report())).toMatchObject({
    scenario: "accept",
    rate: 6_210,
    p50Ms: 9.88,
    bars: [{ figure: "rate", bar: 5_000, aim: 8_000, reached: "bar" }],
    faults: [],
    peers: { "grpc-echo": { rate: 27_000 }, "socket-stack": { skipped: "no registry" } },
    ratios: { "grpc-echo.rate": 0.23 },
    machine: { cores: 2, node: "24.0.0", postgres: "18.4", nats: "2.9.10", redis: "7.0.15" },
  });
});

test("the table names what was skipped, what went wrong, and a machine that was not quiet", () => {
  const figures = { rate: 100, cores: { server: 0.9, elsewhere: 0.8 } };
  const text = linesOf(scenario, report({ figures, faults: ["lost: 3 of 10"] })).join("\n");
  expect(text).toMatch(/grpc-echo +27,000 +0\.23/);
  expect(text).toContain("skipped: socket-stack (no registry)");
  expect(text).toContain("BAR NOT REACHED");
  expect(text).toContain("FAULT: lost: 3 of 10");
  expect(text).toContain("not quiet");
  expect(linesOf(scenario, report()).join("\n")).not.toMatch(/FAULT|quiet/);
});
