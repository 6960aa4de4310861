import type { JsonValue } from "@bufbuild/protobuf";
import type { FieldFault } from "#src/errors.ts";

const UNSTORABLE = "must not hold U+0000 or halves of surrogate pairs";

/** Clients in most languages refuse messages nested 100 deep, and a level of JSON is up to three levels of Struct. */
const MAX_DEPTH = 16;

/** Refuses what protobuf (or its JSON) can carry and Postgres cannot keep as text: U+0000 and lone surrogates. */
export function textFaults(texts: Record<string, string>): FieldFault[] {
  return Object.entries(texts)
    .filter(([, text]) => !isStorable(text))
    .map(([field]) => ({ field, description: UNSTORABLE }));
}

/**
 * Refuses a JSON value that could not be stored, or not be answered as it was given: unstorable text, as above, numbers
 * that are not finite, and nesting beyond 16 levels. Undefined when it is good.
 */
export function jsonFault(field: string, value: JsonValue): FieldFault | undefined {
  // With a list and not by recursion: the caller decides how deep it goes.
  const open: { value: JsonValue; depth: number }[] = [{ value, depth: 1 }];
  for (let next = open.pop(); next !== undefined; next = open.pop()) {
    const { value, depth } = next;
    if (typeof value === "string" && !isStorable(value)) return { field, description: UNSTORABLE };
    if (typeof value === "number" && !Number.isFinite(value)) return { field, description: "must hold finite numbers" };
    if (typeof value !== "object" || value === null) continue;
    if (depth > MAX_DEPTH) return { field, description: `must be at most ${MAX_DEPTH} levels deep` };
    for (const [name, item] of Object.entries(value)) {
      if (!isStorable(name)) return { field, description: UNSTORABLE };
      if (item !== undefined) open.push({ value: item, depth: depth + 1 });
    }
  }
  return undefined;
}

function isStorable(text: string): boolean {
  return !text.includes("\0") && text.isWellFormed();
}
