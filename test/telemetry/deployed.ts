import { readFileSync } from "node:fs";
import { parse } from "yaml";

type Panel = {
  title: string;
  type: string;
  description?: string;
  gridPos: { x: number; y: number; w: number; h: number };
  fieldConfig?: { defaults: { unit?: string } };
  targets?: { expr: string; legendFormat: string }[];
};
type Dashboard = { uid: string; panels: Panel[]; templating: { list: { name: string; query: unknown }[] } };
export type Rule = {
  alert: string;
  expr: string;
  for: string;
  labels: { severity: string };
  annotations: { summary: string; description: string; runbook: string };
};

const read = (file: string) => readFileSync(new URL(`../../deploy/${file}`, import.meta.url), "utf8");

export const dashboard = () => JSON.parse(read("grafana-dashboard.json")) as Dashboard;
export const alerts = () => parse(read("prometheus-alerts.yaml")) as { groups: { name: string; rules: Rule[] }[] };
export const yaml = (file: string) => parse(read(file)) as Record<string, unknown>;

/** Every expression with where it stands. Grafana puts the range in before Prometheus sees it. */
export function expressions(): { where: string; expr: string }[] {
  const panels = dashboard().panels.flatMap(({ title, targets = [] }) =>
    targets.map(({ expr }) => ({ where: `panel ${title}`, expr: expr.replaceAll("$__rate_interval", "5m") })),
  );
  const rules = alerts().groups.flatMap(({ rules: each }) =>
    each.map(({ alert, expr }) => ({ where: `alert ${alert}`, expr })),
  );
  return [...panels, ...rules];
}
