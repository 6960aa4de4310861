/** The settings in words: for deploy/CONFIGURATION.md, for `posthorn serve --help`, and a configuration fit to be printed. */

import { environments, type Option, required, type Secrecy } from "./option.ts";
import { listedOptions } from "./options.ts";

const titles: Readonly<Record<string, string>> = {
  process: "Process",
  postgres: "Postgres",
  nats: "NATS",
  redis: "Redis",
  grpc: "gRPC port",
  http: "HTTP port",
  deadlines: "Deadlines",
  auth: "Who may call",
  encryption: "Encryption",
  apiLimits: "Limits of calls",
  notificationLimits: "Limits of notifications",
  accept: "Accepting",
  route: "Deciding",
  giveWay: "Giving way",
  memory: "Memory",
  reconcile: "Reconciler",
  schedule: "Scheduler",
  stream: "Streams",
  inbox: "Inbox",
  retention: "Retention",
  telemetry: "Telemetry",
  shutdown: "Shutdown",
};

/** All of `deploy/CONFIGURATION.md`: a table for each group. */
export function configDocument(): string {
  const chapters = grouped().map(([group, options]) => {
    const rows = options.map((option) => `| ${names(option)} | ${cell(option.doc)} | ${cell(defaultOf(option))} |`);
    return [`## ${titles[group] ?? group}`, "", "| variable | meaning | default |", "|---|---|---|", ...rows].join(
      "\n",
    );
  });
  return `${[HEAD, ...chapters].join("\n\n")}\n`;
}

const HEAD = `# Configuration

From the environment, read once and checked as a whole at start: every problem is told at once. \`POSTHORN_ENV\` chooses the
defaults. In staging and production the databases, the encryption key and the operator's key have to be set. The same in a
terminal: \`npx posthorn serve --help\`. Written by \`npm run gen\`; do not edit.`;

/** The same for a terminal. */
export function configHelp(): string {
  return grouped()
    .map(([group, options]) => {
      const entries = options.map((option) => {
        const also = option.aliases.length === 0 ? "" : ` (also ${option.aliases.join(", ")})`;
        const meaning = option.doc.replaceAll("`", "");
        return `  ${option.name}${also}\n      ${meaning}\n      Default: ${defaultOf(option).replaceAll("`", "")}`;
      });
      return [`${titles[group] ?? group}:`, ...entries].join("\n");
    })
    .join("\n\n");
}

/** One line for each value, as `path = value`, secrets replaced. Takes a whole configuration. */
export function describeConfig(config: object): string {
  const lines: string[] = [];
  const walk = (node: unknown, path: string): void => {
    if (isGroup(node))
      for (const [key, child] of Object.entries(node)) walk(child, path === "" ? key : `${path}.${key}`);
    else lines.push(`${path} = ${node === undefined ? "(unset)" : JSON.stringify(node)}`);
  };
  walk(printable(config, ""), "");
  return lines.join("\n");
}

/** A copy of the configuration, or of the group at `path` in it, without secrets. */
export function printable(node: unknown, path: string): unknown {
  const hidden = secrecyOf.get(path) ?? "public";
  if (node === undefined) return undefined;
  if (hidden === "secret") return "[redacted]";
  if (hidden === "url") return typeof node === "string" ? redactUrls(node) : "[redacted]";
  if (node instanceof Uint8Array) return "[redacted]";
  if (!isGroup(node)) return node;
  return Object.fromEntries(
    Object.entries(node).map(([key, child]) => [key, printable(child, path === "" ? key : `${path}.${key}`)]),
  );
}

const secrecyOf: ReadonlyMap<string, Secrecy> = new Map(
  listedOptions.map(({ path, option }) => [path, option.secrecy]),
);

/** One URL, or several separated by commas. */
function redactUrls(urls: string): string {
  return urls
    .split(/,(?=[a-z]+:\/\/)/)
    .map(redactUrl)
    .join(",");
}

/** Hides the user information of a URL that is not a plain user name, and its query, which may hold a password too. */
function redactUrl(url: string): string {
  if (!URL.canParse(url)) return "[redacted]";
  const { protocol, username, password, host, pathname, search } = new URL(url);
  // Without a password, what stands before the @ is a token (NATS).
  const user = username === "" && password === "" ? "" : password === "" ? "[redacted]@" : `${username}:[redacted]@`;
  return `${protocol}//${user}${host}${pathname}${search === "" ? "" : "?[redacted]"}`;
}

export function isGroup(node: unknown): node is Readonly<Record<string, unknown>> {
  return typeof node === "object" && node !== null && !Array.isArray(node) && !(node instanceof Uint8Array);
}

function grouped(): [string, Option<unknown>[]][] {
  const byGroup = Map.groupBy(listedOptions, ({ path }) =>
    path.includes(".") ? (path.split(".")[0] ?? "") : "process",
  );
  return [...byGroup].map(([group, listed]) => [group, listed.map(({ option }) => option)]);
}

function names(option: Option<unknown>): string {
  const also = option.aliases.map((alias) => `\`${alias}\``).join(", ");
  return also === "" ? `\`${option.name}\`` : `\`${option.name}\`<br>also ${also}`;
}

function defaultOf(option: Option<unknown>): string {
  const each = environments.map((environment) => {
    const value = option.defaults[environment];
    if (value === required) return "required";
    if (value === undefined) return "unset";
    if (option.secrecy === "secret") return Array.isArray(value) && value.length === 0 ? "none" : "built in";
    const shown = option.kind.show(value);
    return shown === "" ? "none" : `\`${shown}\``;
  });
  const [development = "", staging = "", production = ""] = each;
  if (development === staging && staging === production) return development;
  if (staging === production) return `${development} in development, else ${staging}`;
  if (development === staging) return `${development}, ${production} in production`;
  return `${development} development, ${staging} staging, ${production} production`;
}

/** A `|` would end the cell. */
function cell(text: string): string {
  return text.replaceAll("|", "\\|");
}
