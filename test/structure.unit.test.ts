import { readdirSync, readFileSync } from "node:fs";
import { join, relative } from "node:path";
import { expect, test } from "vitest";

// The rooms of the house: who may import whom. A rule that is in the way is changed here, in the open.

const SRC = join(import.meta.dirname, "../src");
const files = readdirSync(SRC, { recursive: true, encoding: "utf8" }).filter((file) => file.endsWith(".ts"));

type Import = { from: string; to: string };

const imports: Import[] = files.flatMap((file) => {
  const source = readFileSync(join(SRC, file), "utf8");
  return [...source.matchAll(/^(?:import|export)[^;]*? from "([^"]+)";/gms)].map(([, target = ""]) => ({
    from: file,
    to: target.startsWith("#src/")
      ? target.slice("#src/".length)
      : target.startsWith(".")
        ? relative(SRC, join(SRC, file, "..", target))
        : target,
  }));
});

const NOUNS = [
  "analytics",
  "audit",
  "auth",
  "batches",
  "channels",
  "deadlines",
  "escalation",
  "inbox",
  "learning",
  "limits",
  "notifications",
  "preferences",
  "schedules",
  "subscriptions",
  "tenants",
  "topics",
  "types",
  "users",
];

/** Imports from files that begin with one of `from` to files that begin with one of `to`. */
function between(from: readonly string[], to: readonly string[]): string[] {
  const within = (path: string, rooms: readonly string[]) =>
    rooms.some((room) => path === room || path.startsWith(`${room}/`));
  return imports
    .filter((edge) => within(edge.from, from) && within(edge.to, to))
    .map((edge) => `${edge.from} imports ${edge.to}`);
}

test("the graph was read", () => {
  expect(imports.length).toBeGreaterThan(500);
  expect(between(["api.ts"], ["services"]).length).toBeGreaterThan(5);
});

test("stages meet only at the queue: none imports another", () => {
  const stages = [
    "pipeline/accept",
    "pipeline/route",
    "pipeline/close",
    "pipeline/reconcile",
    "pipeline/escalate",
    "pipeline/deliver",
  ];
  for (const stage of stages)
    expect(
      between(
        [stage],
        stages.filter((other) => other !== stage),
      ),
    ).toEqual([]);
});

test("what is decided anew is decided by the rules of the first decision, and by nothing else of that stage", () => {
  const rules = [
    "pipeline/route/gates",
    "pipeline/route/conclude.ts",
    "pipeline/route/conclusion.ts",
    "pipeline/route/decide-in-slices.ts",
    "pipeline/route/record.ts",
    "pipeline/route/when-they-look.ts",
  ];
  const others = between(["pipeline/reconsider"], ["pipeline"]).filter(
    (edge) => !["pipeline/reconsider", ...rules].some((file) => edge.includes(`imports ${file}`)),
  );
  expect(others).toEqual([]);
});

test("nouns know nothing of services and stages", () => {
  expect(between(NOUNS, ["services", "pipeline", "schedule", "api.ts", "main.ts", "cli", "dev"])).toEqual([]);
});

test("services do not call each other", () => {
  expect(between(["services"], ["services", "api.ts", "main.ts", "schedule", "cli", "dev"])).toEqual([]);
});

test("what everything stands on stands on nothing else", () => {
  const base = ["store", "broker", "cache", "telemetry"];
  expect(
    between(base, [...NOUNS, "services", "pipeline", "rpc", "schedule", "stream", "api.ts", "main.ts", "cli", "dev"]),
  ).toEqual([]);
});

test("the server does not need the command line or the development tools", () => {
  const server = files.map((file) => file.split("/")[0] ?? "").filter((room) => room !== "cli" && room !== "dev");
  expect(between([...new Set(server)], ["cli", "dev"])).toEqual([]);
});

test("OpenTelemetry's SDK stays in telemetry", () => {
  const sdk = imports.filter(
    ({ from, to }) => to.startsWith("@opentelemetry/") && to !== "@opentelemetry/api" && !from.startsWith("telemetry/"),
  );
  expect(sdk).toEqual([]);
});

test("the environment, the clock and chance come in through the front door", () => {
  const offenders = files
    .filter((file) => !/^(main\.ts|cli\/|dev\/)/.test(file))
    .flatMap((file) => {
      const source = readFileSync(join(SRC, file), "utf8");
      return [...source.matchAll(/process\.env|Math\.random|new Date\(\)|Date\.now\(\)/g)].map(
        ([what]) => `${file}: ${what}`,
      );
    });
  // grpc-js gives a deadline as an instant of the real clock; it can only be compared with that.
  expect(offenders).toEqual(["rpc/grpc/calls.ts: Date.now()"]);
});
