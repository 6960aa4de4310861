import { type DescField, type DescMessage, getOption, hasOption, ScalarType } from "@bufbuild/protobuf";
import { WireType } from "@bufbuild/protobuf/wire";
import { field as fieldOption, Ignore } from "#gen/buf/validate/validate_pb.ts";
import type { FieldFault } from "#src/errors.ts";

/** Up to here a field is judged like any other, so that a caller hears of all that is wrong at once. */
export const tolerated: Tolerance = (max) => 2 * max + 100;
/** In what is judged item by item, so that one bad item does not refuse the others: only for the time it would take. */
export const toleratedInItems: Tolerance = (max) => 50 * max + 5_000;
export type Tolerance = (max: number) => number;

/** Values in a `google.protobuf.Struct`, whatever is nested in what. All that are stored have fewer. */
export const MAX_VALUES = 10_000;
/** Paths in a `google.protobuf.FieldMask`. */
export const MAX_PATHS = 1_000;
export const TOO_MANY_PATHS = `must contain no more than ${MAX_PATHS} item(s)`;

/**
 * Parts that a request may have, wherever they are: each known field of each message, and each byte of a packed list. A
 * batch of five thousand with twenty values of data each has some five hundred thousand, and takes a third of a second to
 * read.
 */
export const MAX_PARTS = 600_000;
/** Parts of a value in JSON, counted as if it were one of a Struct: its entry with a key and a value, and its kind. */
export const PARTS_OF_VALUE = 4;
export const MALFORMED = "malformed";
export const TOO_MANY_PARTS = "brings the request to more values than can be read at once: send fewer in each";

/** How much of a field there may be, in a measure of its own. */
export type Bound = { readonly max: number; readonly description: string };
export type Planned = {
  readonly field: DescField;
  readonly bound: Bound | undefined;
  /** Of the messages in it. */
  readonly inner: Plan | undefined;
  /** The contract leaves its items to whoever takes them. */
  readonly isJudgedByItem: boolean;
  /** As it stands on the wire, and whether it may stand there as a packed list as well. */
  readonly wireType: WireType;
  readonly isPacked: boolean;
  /** Only of a map. */
  readonly entry: EntryTypes | undefined;
};
export type EntryTypes = { readonly key: WireType; readonly value: WireType };

/** What messages of a type may hold. */
export type Plan = {
  /** All that is read, by number. */
  readonly fields: Map<number, Planned>;
  /** Those with a bound, or with one in the messages in them; and the same by their names in JSON. */
  readonly bounded: Planned[];
  readonly inJson: Map<string, Planned>;
};

/** A pure function's memory: schemas are constants of the program. */
const plans = new WeakMap<DescMessage, Plan>();

export function planOf(schema: DescMessage): Plan {
  const known = plans.get(schema);
  if (known !== undefined) return known;
  const plan: Plan = { fields: new Map(), bounded: [], inJson: new Map() };
  // Before its fields: a message may contain itself.
  plans.set(schema, plan);
  for (const field of schema.fields) {
    const bound = boundOf(field);
    const inner = field.message === undefined ? undefined : planOf(field.message);
    const planned = {
      field,
      bound,
      inner,
      isJudgedByItem: isJudgedByItem(field),
      wireType: wireTypeOf(field),
      isPacked: isPackable(field),
      entry: entryTypesOf(field),
    };
    plan.fields.set(field.number, planned);
    // What contains itself may have bounds yet.
    if (bound === undefined && inner !== plan && !isBounded(inner)) continue;
    plan.bounded.push(planned);
    plan.inJson.set(field.name, planned).set(field.jsonName, planned);
  }
  return plan;
}

/** Whether there is anything of which messages of the plan may hold too much. */
export function isBounded(plan: Plan | undefined): plan is Plan {
  return plan !== undefined && plan.bounded.length > 0;
}

export function fault(field: DescField, { description }: Bound): FieldFault {
  return { field: field.name, description };
}

export function inside(field: DescField, index: number, { field: rest, description }: FieldFault): FieldFault {
  return { field: `${nameAt(field, index)}.${rest}`, description };
}

export function nameAt(field: DescField, index: number): string {
  return field.fieldKind === "list" ? `${field.name}[${index}]` : field.name;
}

export function isStruct(field: DescField): boolean {
  return field.message?.typeName === "google.protobuf.Struct";
}

export function isFieldMask(message: DescMessage | undefined): boolean {
  return message?.typeName === "google.protobuf.FieldMask";
}

export function isWellKnown({ typeName }: DescMessage): boolean {
  return typeName.startsWith("google.protobuf.");
}

/** What alone can be large. */
export function isLarge(value: unknown): value is string | object {
  return typeof value === "string" || (typeof value === "object" && value !== null);
}

/** How much a field holds, in the measure of its bound, counted no further than `enough`. */
export function sizeOf(field: DescField, value: string | object, enough: number): number {
  if (isStruct(field)) return countValues(value, enough);
  if (typeof value === "string" || Array.isArray(value)) return value.length;
  return value instanceof Uint8Array ? value.byteLength : Object.keys(value).length;
}

/** A value and all that is nested in it, counted no further than just beyond `enough`. */
export function countValues(root: unknown, enough: number): number {
  const waiting = [root];
  let count = 0;
  for (; waiting.length > 0 && count <= enough; count++) {
    const value = waiting.pop();
    if (typeof value === "object" && value !== null) for (const item of Object.values(value)) waiting.push(item);
  }
  return count;
}

function isJudgedByItem(field: DescField): boolean {
  const rules = hasOption(field, fieldOption) ? getOption(field, fieldOption).type : undefined;
  return rules?.case === "repeated" && rules.value.items?.ignore === Ignore.ALWAYS;
}

function wireTypeOf(field: DescField): WireType {
  if (field.fieldKind === "enum" || (field.fieldKind === "list" && field.listKind === "enum")) return WireType.Varint;
  if (field.fieldKind === "scalar" || (field.fieldKind === "list" && field.listKind === "scalar"))
    return wireTypeOfScalar(field.scalar);
  return WireType.LengthDelimited;
}

function entryTypesOf(field: DescField): EntryTypes | undefined {
  if (field.fieldKind !== "map") return undefined;
  const value =
    field.mapKind === "message"
      ? WireType.LengthDelimited
      : field.mapKind === "enum"
        ? WireType.Varint
        : wireTypeOfScalar(field.scalar);
  return { key: wireTypeOfScalar(field.mapKey), value };
}

/** https://protobuf.dev/programming-guides/encoding/#structure */
function wireTypeOfScalar(type: ScalarType): WireType {
  switch (type) {
    case ScalarType.STRING:
    case ScalarType.BYTES:
      return WireType.LengthDelimited;
    case ScalarType.DOUBLE:
    case ScalarType.FIXED64:
    case ScalarType.SFIXED64:
      return WireType.Bit64;
    case ScalarType.FLOAT:
    case ScalarType.FIXED32:
    case ScalarType.SFIXED32:
      return WireType.Bit32;
    default:
      return WireType.Varint;
  }
}

/** Whether it may stand on the wire as one list of numbers. */
export function isPackable(field: DescField): boolean {
  if (field.fieldKind !== "list") return false;
  if (field.listKind === "enum") return true;
  return field.listKind === "scalar" && field.scalar !== ScalarType.STRING && field.scalar !== ScalarType.BYTES;
}

function boundOf(field: DescField): Bound | undefined {
  if (isFieldMask(field.parent)) return { max: MAX_PATHS, description: TOO_MANY_PATHS };
  // A Struct is measured with all that is nested in it, the Structs too.
  if (isWellKnown(field.parent)) return undefined;
  if (isStruct(field)) return { max: MAX_VALUES, description: `must hold no more than ${MAX_VALUES} values` };
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
