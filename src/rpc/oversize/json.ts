import type { FieldFault } from "#src/errors.ts";
import {
  countValues,
  fault,
  inside,
  isBounded,
  isFieldMask,
  isLarge,
  isStruct,
  MAX_PARTS,
  MAX_PATHS,
  PARTS_OF_VALUE,
  type Plan,
  sizeOf,
  TOO_MANY_PARTS,
  TOO_MANY_PATHS,
  type Tolerance,
  tolerated,
  toleratedInItems,
} from "./bounds.ts";

/** Values there may still be; below zero they were too many. */
type Budget = { left: number };

/** The first field of a parsed message that is far too large, else the one at which its values become too many. */
export function oversizeJson(plan: Plan, json: unknown): FieldFault | undefined {
  if (typeof json !== "object" || json === null) return undefined;
  const budget = { left: MAX_PARTS / PARTS_OF_VALUE };
  let tooMany: FieldFault | undefined;
  for (const [key, held] of Object.entries(json)) {
    const found = inField(plan, key, held, budget, tolerated);
    if (found !== undefined) return found;
    // A field that is too large tells more.
    if (budget.left < 0) tooMany ??= { field: snakeCased(key), description: TOO_MANY_PARTS };
  }
  return tooMany;
}

function inField(plan: Plan, key: string, held: unknown, budget: Budget, most: Tolerance): FieldFault | undefined {
  const planned = plan.inJson.get(key);
  if (planned === undefined || !isLarge(held)) {
    pass(held, budget);
    return undefined;
  }
  const { field, bound, inner } = planned;
  const size = bound === undefined ? 0 : sizeOf(field, held, most(bound.max));
  if (bound !== undefined && size > most(bound.max)) return fault(field, bound);
  if (isStruct(field)) {
    budget.left -= size;
    return undefined;
  }
  if (typeof held === "string") {
    budget.left--;
    const isTooMuch = isFieldMask(field.message) && commasIn(held) + 1 > most(MAX_PATHS);
    return isTooMuch ? inside(field, 0, { field: "paths", description: TOO_MANY_PATHS }) : undefined;
  }
  const isOne = field.fieldKind === "message";
  if (!isOne) budget.left--;
  const values: unknown[] = isOne ? [held] : Object.values(held);
  const within = planned.isJudgedByItem ? toleratedInItems : most;
  for (let index = 0; index < values.length; index++) {
    const item = values[index];
    if (!isBounded(inner) || typeof item !== "object" || item === null) {
      pass(item, budget);
      continue;
    }
    budget.left--;
    const message = item as Record<string, unknown>;
    for (const name of Object.keys(message)) {
      const found = inField(inner, name, message[name], budget, within);
      if (found !== undefined) return inside(field, index, found);
    }
  }
  return undefined;
}

/** Counts what has no bound but that of all values together. */
function pass(value: unknown, budget: Budget): void {
  budget.left -= typeof value === "object" ? countValues(value, Math.max(0, budget.left)) : 1;
}

/** JSON writes a FieldMask as one string. */
function commasIn(text: string): number {
  let count = 0;
  for (let at = text.indexOf(","); at >= 0; at = text.indexOf(",", at + 1)) count++;
  return count;
}

function snakeCased(key: string): string {
  return /^\w{1,64}$/.test(key) ? key.replaceAll(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`) : "";
}
