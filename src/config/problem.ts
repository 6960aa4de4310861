/** What is wrong with a configuration, told so that one reading is enough to repair it. */

export interface Problem {
  /** The variable, or the variables that do not agree. */
  readonly variable: string;
  /** What it was set to, fit to be printed; `undefined` when it was not set. */
  readonly got: string | undefined;
  readonly expected: string;
  readonly fix: string;
}

/** Thrown once with every problem. The message holds no secret: what was meant to be one is not repeated. */
export class ConfigError extends Error {
  readonly problems: readonly Problem[];

  constructor(problems: readonly Problem[]) {
    const count = problems.length === 1 ? "1 problem" : `${problems.length} problems`;
    super(`The configuration has ${count}:\n${problems.map(tell).join("\n")}`);
    this.name = "ConfigError";
    this.problems = problems;
  }
}

function tell({ variable, got, expected, fix }: Problem): string {
  return `  ${variable}: ${got === undefined ? "not set" : `got ${got}`}; expected ${expected}.\n    ${fix}`;
}
