import { readdirSync } from "node:fs";
import { expect, test } from "vitest";
import { alerts, dashboard, expressions, yaml } from "./deployed.ts";
import { usesOf } from "./promql.ts";

test("a panel has a unit, says what it shows, and lies on no other", () => {
  const taken = new Set<string>();
  for (const { title, type, description, fieldConfig, targets, gridPos } of dashboard().panels) {
    for (let x = gridPos.x; x < gridPos.x + gridPos.w; x++)
      for (let y = gridPos.y; y < gridPos.y + gridPos.h; y++) {
        if (taken.has(`${x},${y}`)) expect.fail(`${title} lies on another`);
        taken.add(`${x},${y}`);
      }
    if (type === "row") continue;
    expect(fieldConfig?.defaults.unit, title).toMatch(/^\w+$/);
    expect(description?.length, title).toBeGreaterThan(5);
    expect(targets?.length, title).toBeGreaterThan(0);
  }
});

test("every panel follows the choice of job and instance", () => {
  expect(dashboard().templating.list.map(({ name }) => name)).toEqual(["datasource", "job", "instance"]);
  for (const { where, expr } of expressions().filter(({ where: at }) => at.startsWith("panel")))
    for (const { matchers } of usesOf(expr))
      expect(matchers, where).toEqual(
        expect.arrayContaining([
          { label: "job", op: "=~", value: "$job" },
          { label: "instance", op: "=~", value: "$instance" },
        ]),
      );
});

test("a rule is what Prometheus takes, and tells a person what is wrong and what to do", () => {
  const names = new Set<string>();
  for (const { name, rules } of alerts().groups) {
    expect(name).toMatch(/^\w+$/);
    for (const { alert, expr, for: duration, labels, annotations, ...rest } of rules) {
      expect(Object.keys(rest)).toEqual([]);
      expect(names).not.toContain(alert);
      names.add(alert);
      expect(alert).toMatch(/^Posthorn[A-Z]\w+$/);
      expect(duration, alert).toMatch(/^\d+[sm]$/);
      expect(Object.keys(labels)).toEqual(["severity"]);
      expect(["page", "ticket"]).toContain(labels.severity);
      expect(Object.keys(annotations).sort(), alert).toEqual(["description", "runbook", "summary"]);
      expect(annotations.runbook.length, alert).toBeGreaterThan(60);
      // What a text names must be left over when the expression is done.
      const kept = new Set(
        usesOf(expr).flatMap((use) => (use.grouping.length > 0 ? use.grouping : ["instance", "pool"])),
      );
      for (const [, label = ""] of JSON.stringify(annotations).matchAll(/\$labels\.(\w+)/g))
        expect(kept, `${alert} names ${label}`).toContain(label);
    }
  }
  expect(names.size).toBeGreaterThan(12);
});

test("memory is measured by what the container allows, so that it is told before the container is killed", () => {
  const rule = alerts()
    .groups.flatMap(({ rules }) => rules)
    .find(({ alert }) => alert === "PosthornMemory");
  expect(usesOf(rule?.expr ?? "").map(({ metric }) => metric)).toEqual([
    "process_resident_memory_bytes",
    "posthorn_memory_limit_bytes",
  ]);
  expect(Number(/> ([\d.]+)$/.exec(rule?.expr ?? "")?.[1])).toBeLessThan(1);
});

test("the collector's pipelines use what is defined, and Prometheus loads the rules", () => {
  const config = yaml("otel-collector.yaml") as Record<"receivers" | "processors" | "exporters", object> & {
    service: { pipelines: Record<string, Record<"receivers" | "processors" | "exporters", string[]>> };
  };
  expect(Object.keys(config.service.pipelines)).toEqual(["traces", "metrics"]);
  for (const pipeline of Object.values(config.service.pipelines))
    for (const part of ["receivers", "processors", "exporters"] as const)
      for (const name of pipeline[part]) expect(Object.keys(config[part])).toContain(name);
  const files = readdirSync(new URL("../../deploy/", import.meta.url));
  for (const file of yaml("prometheus.yaml").rule_files as string[]) expect(files).toContain(file);
});

test("an expression that is not one is found", () => {
  expect(() => usesOf("sum by (lane (rate(posthorn_x[5m]))")).toThrow(/not PromQL/);
});
