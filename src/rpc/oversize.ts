import { type DescField, type DescMessage, getOption, hasOption, type Message, ScalarType } from "@bufbuild/protobuf";
import { BinaryReader, WireType } from "@bufbuild/protobuf/wire";
import { field as fieldOption, Ignore } from "#gen/buf/validate/validate_pb.ts";
import type { FieldFault } from "#src/errors.ts";
import { tooManyParts, tooManyValues } from "./too-many-parts.ts";

// A request of 4 MiB may hold two million items where the contract allows a thousand. To make objects of them, and to
// judge each by its rules, takes seconds in which the process does nothing else. So what is far too large is refused for
// its size alone, and where the request is a large one, before it is decoded.

/** A smaller request cannot hold so much that decoding it takes long. */
const LARGE_BYTES = 16 * 1024;
/** Up to here a field is judged like any other, so that a caller hears of all that is wrong at once. */
const tolerated = (max: number) => 2 * max + 100;
/** In what is judged item by item, so that one bad item does not refuse the others: only for the time it would take. */
const toleratedInItems = (max: number) => 50 * max + 5_000;

/** Values in a `google.protobuf.Struct`, whatever is nested in what. All that are stored have fewer. */
export const MAX_VALUES = 10_000;
/** More than one takes, but for long texts; so many of those are not stored either. */
const BYTES_OF_VALUE = 32;
const BYTES_OF_CHARACTER = 4;
/** Paths in a `google.protobuf.FieldMask`. */
export const MAX_PATHS = 1_000;
const TOO_MANY_PATHS = `must contain no more than ${MAX_PATHS} item(s)`;

type Tolerance = (max: number) => number;

/** How much of a field there may be, in a measure of its own. */
type Bound = { readonly max: number; readonly description: string };
type Bounded = {
  readonly field: DescField;
  readonly bound: Bound | undefined;
  /** Of the messages in it. */
  readonly inner: Plan | undefined;
  /** The contract leaves its items to whoever takes them. */
  readonly isJudgedByItem: boolean;
};
/** What messages of a type may hold, by field. */
type Plan = Map<number, Bounded>;

/** The first field of an encoded message that is far too large, of a large one. What is malformed is found by others. */
export function oversizeBytes(
  schema: DescMessage,
  bytes: Uint8Array,
  form: "binary" | "json" = "binary",
): FieldFault | undefined {
  if (bytes.byteLength < LARGE_BYTES) return undefined;
  try {
    if (form === "json") {
      const json: unknown = JSON.parse(Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString());
      return inValues(planOf(schema), json as object, inJson, tolerated, toleratedInItems) ?? tooManyValues(json);
    }
    return (
      inBytes(planOf(schema), new BinaryReader(bytes), bytes.byteLength, tolerated) ??
      tooManyParts(schema, new BinaryReader(bytes))
    );
  } catch {
    return undefined;
  }
}

/** The first field of a message that is far too large. */
export function oversize(schema: DescMessage, message: Message): FieldFault | undefined {
  return inValues(planOf(schema), message, inMessage, tolerated, undefined);
}

function inBytes(plan: Plan, reader: BinaryReader, end: number, most: Tolerance): FieldFault | undefined {
  const counts = new Map<number, number>();
  while (reader.pos < end) {
    const [number, wireType] = reader.tag();
    const bounded = plan.get(number);
    if (bounded === undefined || wireType !== WireType.LengthDelimited) {
      reader.skip(wireType, number);
      continue;
    }
    const { field, bound, inner, isJudgedByItem } = bounded;
    const index = counts.get(number) ?? 0;
    counts.set(number, index + 1);
    const length = reader.uint32();
    const stop = reader.pos + length;
    if (bound !== undefined && bytesAsSize(field, length, index) > most(bound.max)) return fault(field, bound);
    if (inner !== undefined) {
      const within = isJudgedByItem ? toleratedInItems : most;
      const found =
        field.fieldKind === "map" ? inEntry(inner, reader, stop, most) : inBytes(inner, reader, stop, within);
      if (found !== undefined) return inside(field, index, found);
    }
    reader.pos = stop;
  }
  return undefined;
}

/** On the wire an entry of a map is a message of a key, 1, and a value, 2. */
function inEntry(plan: Plan, reader: BinaryReader, end: number, most: Tolerance): FieldFault | undefined {
  while (reader.pos < end) {
    const [number, wireType] = reader.tag();
    if (number === 2 && wireType === WireType.LengthDelimited)
      return inBytes(plan, reader, reader.uint32() + reader.pos, most);
    reader.skip(wireType, number);
  }
  return undefined;
}

/** At most what it will be in memory. */
function bytesAsSize(field: DescField, length: number, index: number): number {
  if (isStruct(field)) return length / BYTES_OF_VALUE;
  if (field.fieldKind !== "scalar") return index + 1;
  return field.scalar === ScalarType.STRING ? length / BYTES_OF_CHARACTER : length;
}

/** What a field holds, if that can be large. */
type ValueOf = (holder: object, field: DescField) => string | object | undefined;

function inValues(
  plan: Plan,
  holder: object,
  value: ValueOf,
  most: Tolerance,
  inItems: Tolerance | undefined,
): FieldFault | undefined {
  for (const { field, bound, inner, isJudgedByItem } of plan.values()) {
    const held = value(holder, field);
    if (held === undefined) continue;
    if (bound !== undefined && sizeOf(field, held, most(bound.max)) > most(bound.max)) return fault(field, bound);
    const paths = typeof held === "string" && isFieldMask(field.message) ? commasIn(held) + 1 : 0;
    if (paths > most(MAX_PATHS)) return inside(field, 0, { field: "paths", description: TOO_MANY_PATHS });
    const within = isJudgedByItem ? inItems : most;
    if (inner === undefined || within === undefined) continue;
    const values = field.fieldKind === "message" ? [held] : Object.values(held);
    for (let index = 0; index < values.length; index++) {
      const item: unknown = values[index];
      if (typeof item !== "object" || item === null) continue;
      const found = inValues(inner, item, value, within, inItems);
      if (found !== undefined) return inside(field, index, found);
    }
  }
  return undefined;
}

function fault(field: DescField, { description }: Bound): FieldFault {
  return { field: field.name, description };
}

function inside(field: DescField, index: number, { field: rest, description }: FieldFault): FieldFault {
  const path = field.fieldKind === "list" ? `${field.name}[${index}]` : field.name;
  return { field: `${path}.${rest}`, description };
}

function inMessage(message: object, field: DescField): string | object | undefined {
  const value: unknown = Reflect.get(message, field.oneof?.localName ?? field.localName);
  if (field.oneof === undefined || typeof value !== "object" || value === null) return large(value);
  const chosen = value as { case?: string; value?: unknown };
  return chosen.case === field.localName ? large(chosen.value) : undefined;
}

function inJson(json: object, field: DescField): string | object | undefined {
  return large(Reflect.get(json, field.jsonName)) ?? large(Reflect.get(json, field.name));
}

function large(value: unknown): string | object | undefined {
  return typeof value === "string" || (typeof value === "object" && value !== null) ? value : undefined;
}

/** Counted no further than `enough`. */
function sizeOf(field: DescField, value: string | object, enough: number): number {
  if (isStruct(field)) return countValues(value, enough);
  if (typeof value === "string" || Array.isArray(value)) return value.length;
  return value instanceof Uint8Array ? value.byteLength : Object.keys(value).length;
}

function countValues(root: unknown, enough: number): number {
  const waiting = [root];
  let count = 0;
  for (; waiting.length > 0 && count <= enough; count++) {
    const value = waiting.pop();
    if (typeof value === "object" && value !== null) for (const item of Object.values(value)) waiting.push(item);
  }
  return count;
}

/** A pure function's memory: schemas are constants of the program. */
const plans = new WeakMap<DescMessage, Plan>();

function planOf(schema: DescMessage): Plan {
  const known = plans.get(schema);
  if (known !== undefined) return known;
  const plan: Plan = new Map();
  // Before its fields: a message may contain itself.
  plans.set(schema, plan);
  for (const field of schema.fields) {
    const bound = boundOf(field);
    const inner = field.message === undefined || isStruct(field) ? undefined : planOf(field.message);
    // Not empty, or not yet.
    const holds = inner !== undefined && (inner.size > 0 || inner === plan) ? inner : undefined;
    if (bound !== undefined || holds !== undefined)
      plan.set(field.number, { field, bound, inner: holds, isJudgedByItem: isJudgedByItem(field) });
  }
  return plan;
}

function isJudgedByItem(field: DescField): boolean {
  const rules = hasOption(field, fieldOption) ? getOption(field, fieldOption).type : undefined;
  return rules?.case === "repeated" && rules.value.items?.ignore === Ignore.ALWAYS;
}

function boundOf(field: DescField): Bound | undefined {
  if (isStruct(field)) return { max: MAX_VALUES, description: `must hold no more than ${MAX_VALUES} values` };
  if (isFieldMask(field.parent)) return { max: MAX_PATHS, description: TOO_MANY_PATHS };
  const rules = hasOption(field, fieldOption) ? getOption(field, fieldOption).type : undefined;
  switch (rules?.case) {
    // In the words of protovalidate.
    case "repeated": {
      const max = Number(rules.value.maxItems);
      return max > 0 ? { max, description: `must contain no more than ${max} item(s)` } : undefined;
    }
    case "map": {
      const max = Number(rules.value.maxPairs);
      return max > 0 ? { max, description: `map must be at most ${max} entries` } : undefined;
    }
    case "string": {
      const max = Number(rules.value.maxLen);
      return max > 0 ? { max, description: `must be at most ${max} characters` } : undefined;
    }
    case "bytes": {
      const max = Number(rules.value.maxLen);
      return max > 0 ? { max, description: `must be at most ${max} bytes` } : undefined;
    }
    default:
      return undefined;
  }
}

function isFieldMask(message: DescMessage | undefined): boolean {
  return message?.typeName === "google.protobuf.FieldMask";
}

/** JSON writes a FieldMask as one string. */
function commasIn(text: string): number {
  let count = 0;
  for (let at = text.indexOf(","); at >= 0; at = text.indexOf(",", at + 1)) count++;
  return count;
}

function isStruct(field: DescField): boolean {
  return field.message?.typeName === "google.protobuf.Struct";
}
