/** What one setting is: its names, how its text is read, its default in each environment and why. */

export const environments = ["development", "staging", "production"] as const;
export type Environment = (typeof environments)[number];

/** Marks a default that does not exist: the operator must decide. */
export const required = Symbol("required");

export type PerEnvironment<T> = Readonly<Record<Environment, T>>;

/** How the text of a variable becomes a value, and back for the documentation. */
export interface Kind<T> {
  /** Completes "expected …". */
  readonly expected: string;
  /** A valid value to show as an example of the fix. */
  readonly example: string;
  /** Total: `undefined` means the text is not valid. Never given empty or untrimmed text. */
  parse(text: string): T | undefined;
  show(value: T): string;
}

/**
 * How much of a value may be printed: all of it, a URL without its credentials, or nothing.
 * What is not `public` never appears in an error either, because an invalid secret is usually almost a valid one.
 */
export type Secrecy = "public" | "url" | "secret";

export interface Option<T> {
  readonly tag: "option";
  readonly name: `POSTHORN_${string}`;
  /** Other names the variable goes by; the first that is set counts, after `name`. */
  readonly aliases: readonly string[];
  readonly kind: Kind<T>;
  readonly defaults: PerEnvironment<T | typeof required>;
  readonly secrecy: Secrecy;
  /** What it does and why the default is what it is; one line of markdown. */
  readonly doc: string;
}

interface About {
  readonly aliases?: readonly string[];
  readonly secrecy?: Secrecy;
  readonly doc: string;
}

/** A setting that always has a value, unless its default in some environment is `required`. */
export function option<T>(
  name: Option<T>["name"],
  kind: Kind<T>,
  about: About & { readonly default: NoInfer<T> | PerEnvironment<NoInfer<T> | typeof required> },
): Option<T> {
  return {
    tag: "option",
    name,
    aliases: about.aliases ?? [],
    kind,
    defaults: isPerEnvironment(about.default) ? about.default : everywhere(about.default),
    secrecy: about.secrecy ?? "public",
    doc: about.doc,
  };
}

/** A setting that may be left out; `requiredIn` names the environments where it may not. */
export function optional<T>(
  name: Option<T>["name"],
  kind: Kind<T>,
  about: About & { readonly requiredIn?: readonly Environment[] },
): Option<T | undefined> {
  const inEnvironment = (environment: Environment) =>
    about.requiredIn?.includes(environment) ? required : (undefined as T | undefined);
  return option<T | undefined>(
    name,
    { ...kind, show: (value) => (value === undefined ? "" : kind.show(value)) },
    {
      ...about,
      default: {
        development: inEnvironment("development"),
        staging: inEnvironment("staging"),
        production: inEnvironment("production"),
      },
    },
  );
}

export function everywhere<T>(value: T): PerEnvironment<T> {
  return { development: value, staging: value, production: value };
}

function isPerEnvironment<T>(value: T | PerEnvironment<T>): value is PerEnvironment<T> {
  return typeof value === "object" && value !== null && "development" in value;
}

/** Settings grouped as the program reads them: `config.grpc.port` is `options.grpc.port`. */
export interface OptionGroup {
  readonly [key: string]: Option<unknown> | OptionGroup;
}

/** The values of a group, in the same shape. */
export type ValuesOf<G> = G extends Option<infer T> ? T : { readonly [K in keyof G]: ValuesOf<G[K]> };
