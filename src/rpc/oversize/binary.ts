import { type DescField, ScalarType } from "@bufbuild/protobuf";
import { BinaryReader, WireType } from "@bufbuild/protobuf/wire";
import type { FieldFault } from "#src/errors.ts";
import {
  type EntryTypes,
  isBounded,
  isPackable,
  isStruct,
  isWellKnown,
  MALFORMED,
  MAX_PARTS,
  nameAt,
  type Plan,
  type Planned,
  TOO_MANY_PARTS,
  type Tolerance,
  tolerated,
  toleratedInItems,
} from "./bounds.ts";

/** More than a value of a Struct takes, but for long texts; so many of those are not stored either. */
const BYTES_OF_VALUE = 32;
const BYTES_OF_CHARACTER = 4;

/**
 * The first field of an encoded message that is far too large; else the one at which its parts become too many; else the
 * one that is malformed. The decoder reads a known field as what it is whatever its tag says, and over the end of what it
 * is in: were such a message let through, it would read other fields than were counted here.
 */
export function oversizeBinary(plan: Plan, bytes: Uint8Array): FieldFault | undefined {
  const walk = new Walk(bytes);
  try {
    return walk.inMessage(plan, bytes.byteLength, tolerated, 0) ?? walk.tooMany;
  } catch {
    return walk.tooMany ?? walk.faultHere(MALFORMED);
  }
}

class Walk {
  /** Where the parts came to an end. From there on only fields that are too large are looked for, which tell more. */
  tooMany: FieldFault | undefined;
  readonly #bytes: Uint8Array;
  readonly #reader: BinaryReader;
  /** Of the parts there may be. */
  #left = MAX_PARTS;
  /** The fields it is in, from the outermost. */
  readonly #path: { field: DescField; index: number }[] = [];
  #depth = 0;

  constructor(bytes: Uint8Array) {
    this.#bytes = bytes;
    this.#reader = new BinaryReader(bytes);
  }

  inMessage(plan: Plan, end: number, most: Tolerance, depth: number): FieldFault | undefined {
    const reader = this.#reader;
    let counts: Map<number, number> | undefined;
    while (reader.pos < end) {
      if (this.tooMany !== undefined && !isBounded(plan)) return undefined;
      this.#depth = depth;
      const [number, wireType] = reader.tag();
      const planned = plan.fields.get(number);
      if (planned === undefined) {
        // Passed over when it is read, too.
        reader.skip(wireType, number);
        within(reader.pos, end);
        continue;
      }
      const { field, bound } = planned;
      let index = 0;
      if (field.fieldKind === "list" || (field.fieldKind === "map" && bound !== undefined)) {
        counts ??= new Map();
        index = counts.get(number) ?? 0;
        counts.set(number, index + 1);
      }
      this.#enter(field, index, depth);
      const found = this.#inField(planned, wireType, end, most, index, depth + 1);
      if (found !== undefined) return found;
    }
    return undefined;
  }

  #inField(
    { field, bound, inner, entry, wireType, isPacked, isJudgedByItem }: Planned,
    given: WireType,
    end: number,
    most: Tolerance,
    index: number,
    depth: number,
  ): FieldFault | undefined {
    const reader = this.#reader;
    if (given !== wireType && !(isPacked && given === WireType.LengthDelimited)) throw new Error(MALFORMED);
    this.#count(1);
    if (given !== WireType.LengthDelimited) {
      reader.skip(given);
      within(reader.pos, end);
      return undefined;
    }
    const length = reader.uint32();
    const stop = within(reader.pos + length, end);
    if (bound !== undefined && bytesAsSize(field, length, index) > most(bound.max))
      return { field: this.#name(depth - 1, field.name), description: bound.description };
    if (isPacked) {
      this.#endsWhole(stop, length, wireType);
      this.#count(length);
    }
    const tolerance = isJudgedByItem ? toleratedInItems : most;
    let found: FieldFault | undefined;
    if (entry !== undefined) found = this.#inEntry(entry, inner, stop, most, depth);
    else if (inner !== undefined) found = this.inMessage(inner, stop, tolerance, depth);
    reader.pos = stop;
    return found;
  }

  /** On the wire an entry of a map is a message of a key, 1, and a value, 2. */
  #inEntry(
    entry: EntryTypes,
    plan: Plan | undefined,
    end: number,
    most: Tolerance,
    depth: number,
  ): FieldFault | undefined {
    const reader = this.#reader;
    while (reader.pos < end) {
      if (this.tooMany !== undefined && !isBounded(plan)) return undefined;
      this.#depth = depth;
      const [number, wireType] = reader.tag();
      this.#count(1);
      if (number <= 2 && wireType !== (number === 1 ? entry.key : entry.value)) throw new Error(MALFORMED);
      if (number === 2 && plan !== undefined) {
        const stop = within(reader.uint32() + reader.pos, end);
        const found = this.inMessage(plan, stop, most, depth);
        if (found !== undefined) return found;
        reader.pos = stop;
      } else {
        reader.skip(wireType, number);
        within(reader.pos, end);
      }
    }
    return undefined;
  }

  #enter(field: DescField, index: number, depth: number): void {
    const at = this.#path[depth];
    if (at === undefined) this.#path[depth] = { field, index };
    else {
      at.field = field;
      at.index = index;
    }
    this.#depth = depth + 1;
  }

  /** A packed list, whose last number the decoder would else read to its end beyond. */
  #endsWhole(stop: number, length: number, wireType: WireType): void {
    const width = wireType === WireType.Bit32 ? 4 : wireType === WireType.Bit64 ? 8 : 1;
    const last = length === 0 ? 0 : (this.#bytes[stop - 1] ?? 0);
    if (length % width !== 0 || (width === 1 && last > 0x7f)) throw new Error(MALFORMED);
  }

  #count(parts: number): void {
    this.#left -= parts;
    if (this.#left < 0) this.tooMany ??= this.faultHere(TOO_MANY_PARTS);
  }

  /** Names the field it is at. Entries of maps have no names of their own, nor have the insides of a Struct. */
  faultHere(description: string): FieldFault {
    const path = this.#path.slice(0, this.#depth);
    const nameless = path.findIndex(
      ({ field }) => field.fieldKind === "map" || (field.message !== undefined && isWellKnown(field.message)),
    );
    const depth = nameless < 0 ? path.length : nameless + 1;
    const last = path[depth - 1];
    if (last === undefined) return { field: "", description };
    // What may be packed is told as a whole, as it stands on the wire.
    const isPacked = last.field.fieldKind === "list" && isPackable(last.field);
    return { field: this.#name(depth - 1, isPacked ? last.field.name : nameAt(last.field, last.index)), description };
  }

  #name(depth: number, last: string): string {
    return [...this.#path.slice(0, depth).map(({ field, index }) => nameAt(field, index)), last].join(".");
  }
}

/** What is within another ends with it at the latest. */
function within(pos: number, end: number): number {
  if (pos > end) throw new Error(MALFORMED);
  return pos;
}

/** At most what it will be in memory. */
function bytesAsSize(field: DescField, length: number, index: number): number {
  if (isStruct(field)) return length / BYTES_OF_VALUE;
  if (field.fieldKind !== "scalar") return index + 1;
  return field.scalar === ScalarType.STRING ? length / BYTES_OF_CHARACTER : length;
}
