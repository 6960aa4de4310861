/** Reads the variables of each option out of an environment. Pure: the environment is an argument. */

import { type Environment, type Option, type OptionGroup, required } from "./option.ts";
import { isOption, listedOptions, options, type Settings } from "./options.ts";
import type { Problem } from "./problem.ts";

export type Variables = Readonly<Record<string, string | undefined>>;

export interface Reading {
  /** Where a value was wrong or missing its place holds `undefined`, whatever its type says: see `failed`. */
  readonly settings: Settings;
  readonly problems: readonly Problem[];
  /** Names of the options that could not be read; rules over them are not worth asking. */
  readonly failed: ReadonlySet<string>;
}

export function readSettings(env: Variables): Reading {
  const problems: Problem[] = [];
  const failed = new Set<string>();
  const read = <T>(option: Option<T>, environment: Environment): T | undefined => {
    const outcome = readOption(option, env, environment);
    if (!("problem" in outcome)) return outcome.value;
    problems.push(outcome.problem);
    failed.add(option.name);
    return undefined;
  };
  // First, because it chooses the other defaults. A wrong one is read as development, which asks for least: what is
  // then reported is wrong in any environment.
  const environment = read(options.environment, "development") ?? "development";
  const readGroup = (group: OptionGroup): Record<string, unknown> =>
    Object.fromEntries(
      Object.entries(group).map(([key, node]) => {
        if (node === options.environment) return [key, environment];
        return [key, isOption(node) ? read(node, environment) : readGroup(node)];
      }),
    );
  const settings = readGroup(options) as unknown as Settings;
  return { settings, problems: [...problems, ...misspelt(env)], failed };
}

function readOption<T>(
  option: Option<T>,
  env: Variables,
  environment: Environment,
): { readonly value: T } | { readonly problem: Problem } {
  const set = [option.name, ...option.aliases].find((name) => isSet(name, env));
  const fallback = option.defaults[environment];
  if (set === undefined) {
    if (fallback !== required) return { value: fallback };
    const fix = `Set ${option.name}=${option.kind.example} (${environment} has no default for it).`;
    return { problem: { variable: option.name, got: undefined, expected: option.kind.expected, fix } };
  }
  const text = env[set]?.trim() ?? "";
  const value = option.kind.parse(text);
  if (value !== undefined) return { value };
  const got = option.secrecy === "public" ? quoted(text) : "a value that is not shown because it may be secret";
  return { problem: { variable: set, got, expected: option.kind.expected, fix: fixOf(option, set, environment) } };
}

function fixOf<T>(option: Option<T>, set: string, environment: Environment): string {
  const fallback = option.defaults[environment];
  if (fallback === required) return `Set ${set}=${option.kind.example}.`;
  if (fallback === undefined) return `Set it like ${set}=${option.kind.example}, or unset it.`;
  if (option.secrecy !== "public") return `Set it like ${set}=${option.kind.example}, or unset it for the default.`;
  return `Correct it, or unset it for the default of ${environment}, ${quoted(option.kind.show(fallback))}.`;
}

/**
 * Empty counts as unset, because compose files and charts write `NAME=${NAME}`. So does `tcp://…` in a `…_PORT`:
 * Kubernetes sets REDIS_PORT to that in every pod beside a service named redis.
 */
function isSet(name: string, env: Variables): boolean {
  const text = env[name]?.trim() ?? "";
  return text !== "" && !(name.endsWith("_PORT") && text.startsWith("tcp://"));
}

/** A name one slip away from a known one is a mistake that would otherwise be found in production, if ever. */
function misspelt(env: Variables): Problem[] {
  const known = new Set(listedOptions.flatMap(({ option }) => [option.name, ...option.aliases]));
  const posthorn = [...known].filter((name) => name.startsWith("POSTHORN_"));
  return Object.keys(env)
    .filter((name) => name.startsWith("POSTHORN_") && name.length < 100 && !known.has(name) && isSet(name, env))
    .flatMap((name) => {
      const meant = posthorn.find((candidate) => distance(name, candidate) <= 2);
      if (meant === undefined) return [];
      return [
        { variable: name, got: "a name nothing reads", expected: meant, fix: `Rename it to ${meant}, or unset it.` },
      ];
    });
}

/** Levenshtein distance. */
function distance(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, index) => index);
  for (let i = 1; i <= a.length; i++) {
    const next = [i];
    for (let j = 1; j <= b.length; j++) {
      const change = (row[j - 1] ?? 0) + (a[i - 1] === b[j - 1] ? 0 : 1);
      next.push(Math.min(change, (row[j] ?? 0) + 1, (next[j - 1] ?? 0) + 1));
    }
    row = next;
  }
  return row[b.length] ?? 0;
}

function quoted(text: string): string {
  return JSON.stringify(text.length > 80 ? `${text.slice(0, 80).toWellFormed()}…` : text);
}
