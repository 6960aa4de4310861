import { type DescField, ScalarType } from "@bufbuild/protobuf";
import { BinaryReader, WireType } from "@bufbuild/protobuf/wire";
import type { FieldFault } from "#src/errors.ts";
import {
  fault,
  inside,
  isBounded,
  isStruct,
  isWellKnown,
  MAX_PARTS,
  nameAt,
  type Plan,
  TOO_MANY_PARTS,
  type Tolerance,
  tolerated,
  toleratedInItems,
} from "./bounds.ts";

/** More than a value of a Struct takes, but for long texts; so many of those are not stored either. */
const BYTES_OF_VALUE = 32;
const BYTES_OF_CHARACTER = 4;

type Walk = {
  readonly reader: BinaryReader;
  /** Of the parts there may be. */
  left: number;
  /** Where they came to an end. From there on only fields that are too large are looked for, which tell more. */
  tooMany: FieldFault | undefined;
};

/**
 * The first field of an encoded message that is far too large, else the one at which its parts become too many. Throws
 * where it is malformed.
 */
export function oversizeBinary(plan: Plan, bytes: Uint8Array): FieldFault | undefined {
  const walk: Walk = { reader: new BinaryReader(bytes), left: MAX_PARTS, tooMany: undefined };
  return inMessage(plan, walk, bytes.byteLength, tolerated) ?? walk.tooMany;
}

function inMessage(plan: Plan, walk: Walk, end: number, most: Tolerance): FieldFault | undefined {
  const { reader } = walk;
  let counts: Map<number, number> | undefined;
  while (reader.pos < end) {
    if (walk.tooMany !== undefined && !isBounded(plan)) return undefined;
    const [number, wireType] = reader.tag();
    const planned = plan.fields.get(number);
    if (planned === undefined) {
      // Passed over when it is read, too.
      reader.skip(wireType, number);
      continue;
    }
    const { field, bound, inner, isPacked } = planned;
    walk.left--;
    if (wireType !== WireType.LengthDelimited) {
      if (walk.left < 0) walk.tooMany ??= { field: field.name, description: TOO_MANY_PARTS };
      reader.skip(wireType, number);
      continue;
    }
    const length = reader.uint32();
    const stop = reader.pos + length;
    let index = 0;
    if (field.fieldKind === "list" || (field.fieldKind === "map" && bound !== undefined)) {
      counts ??= new Map();
      index = counts.get(number) ?? 0;
      counts.set(number, index + 1);
    }
    if (bound !== undefined && bytesAsSize(field, length, index) > most(bound.max)) return fault(field, bound);
    if (isPacked) walk.left -= length;
    if (walk.left < 0)
      walk.tooMany ??= { field: isPacked ? field.name : nameAt(field, index), description: TOO_MANY_PARTS };
    if (inner !== undefined) {
      const before = walk.tooMany;
      const within = planned.isJudgedByItem ? toleratedInItems : most;
      const found = field.fieldKind === "map" ? inEntry(inner, walk, stop, most) : inMessage(inner, walk, stop, within);
      if (found !== undefined) return inside(field, index, found);
      if (walk.tooMany !== undefined && before === undefined) walk.tooMany = crowded(field, index, walk.tooMany);
    }
    reader.pos = stop;
  }
  return undefined;
}

/** On the wire an entry of a map is a message of a key, 1, and a value, 2. */
function inEntry(plan: Plan, walk: Walk, end: number, most: Tolerance): FieldFault | undefined {
  const { reader } = walk;
  while (reader.pos < end) {
    if (walk.tooMany !== undefined && !isBounded(plan)) return undefined;
    const [number, wireType] = reader.tag();
    if (--walk.left < 0) walk.tooMany ??= { field: "", description: TOO_MANY_PARTS };
    if (number === 2 && wireType === WireType.LengthDelimited) {
      const stop = reader.uint32() + reader.pos;
      const found = inMessage(plan, walk, stop, most);
      if (found !== undefined) return found;
      reader.pos = stop;
    } else reader.skip(wireType, number);
  }
  return undefined;
}

/** Entries of maps have no names of their own, nor have the insides of a Struct. */
function crowded(field: DescField, index: number, within: FieldFault): FieldFault {
  const isNamed = field.fieldKind !== "map" && field.message !== undefined && !isWellKnown(field.message);
  return isNamed ? inside(field, index, within) : { ...within, field: nameAt(field, index) };
}

/** At most what it will be in memory. */
function bytesAsSize(field: DescField, length: number, index: number): number {
  if (isStruct(field)) return length / BYTES_OF_VALUE;
  if (field.fieldKind !== "scalar") return index + 1;
  return field.scalar === ScalarType.STRING ? length / BYTES_OF_CHARACTER : length;
}
