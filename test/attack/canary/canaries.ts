import { randomBytes } from "node:crypto";

/**
 * Words that stand for what nobody but its owner should read, each unlike anything else, so that finding one somewhere
 * says which field went there. Letters and digits only: no escaping, encoding of URLs or pattern changes them.
 */
export type Canaries<Name extends string> = Readonly<Record<Name, string>>;

export function canaries<const Name extends string>(...names: Name[]): Canaries<Name> {
  const entries = names.map((name) => [name, `canary${randomBytes(9).toString("hex")}`] as const);
  return Object.fromEntries(entries) as Record<Name, string>;
}

/** The names of the canaries that are in there: as they are, as hex (as Postgres writes bytes) or in base64. */
export function foundIn(bytes: Uint8Array | string, all: Readonly<Record<string, string>>): string[] {
  const text = typeof bytes === "string" ? bytes : Buffer.from(bytes).toString("latin1");
  return Object.entries(all).flatMap(([name, canary]) =>
    formsOf(canary).some((form) => text.includes(form)) ? [name] : [],
  );
}

function formsOf(canary: string): string[] {
  const bytes = Buffer.from(canary);
  // In base64 a text looks different at each of three places; the ends depend on what is beside it.
  const base64 = [0, 1, 2].map((shift) =>
    Buffer.concat([Buffer.alloc(shift), bytes])
      .toString("base64")
      .slice(shift === 0 ? 0 : 4, -4),
  );
  return [canary, bytes.toString("hex"), ...base64];
}
