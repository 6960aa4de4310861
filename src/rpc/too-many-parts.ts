import { type DescField, type DescMessage, ScalarType } from "@bufbuild/protobuf";
import { type BinaryReader, WireType } from "@bufbuild/protobuf/wire";
import type { FieldFault } from "#src/errors.ts";

/**
 * Parts that a request may have, wherever they are: each known field of each message, and each byte of a packed list. A batch of
 * five thousand with twenty values of data each has some five hundred thousand, and takes a third of a second to read.
 */
const MAX_PARTS = 600_000;
/** Parts of a value in JSON, counted as if it were one of a Struct: its entry with a key and a value, and what that is. */
const PARTS_OF_VALUE = 4;

const DESCRIPTION = "brings the request to more values than can be read at once: send fewer in each";

/** What is in a message, as far as it is counted, by number of the field. */
type Parts = Map<number, { field: DescField; message: DescMessage | undefined; isPacked: boolean }>;

/** The field at which an encoded message comes to have too many parts, if it does. Throws where it is malformed. */
export function tooManyParts(schema: DescMessage, reader: BinaryReader): FieldFault | undefined {
  return inMessage(schema, reader, reader.len, { left: MAX_PARTS });
}

/** The same of JSON that has been parsed. */
export function tooManyValues(json: unknown): FieldFault | undefined {
  if (typeof json !== "object" || json === null) return undefined;
  let left = MAX_PARTS / PARTS_OF_VALUE;
  for (const [key, held] of Object.entries(json)) {
    const waiting: unknown[] = [held];
    while (waiting.length > 0) {
      if (left-- <= 0) return { field: snakeCased(key), description: DESCRIPTION };
      const value = waiting.pop();
      if (typeof value === "object" && value !== null) for (const item of Object.values(value)) waiting.push(item);
    }
  }
  return undefined;
}

function inMessage(
  schema: DescMessage,
  reader: BinaryReader,
  end: number,
  budget: { left: number },
): FieldFault | undefined {
  const parts = partsOf(schema);
  const counts = new Map<number, number>();
  while (reader.pos < end) {
    const [number, wireType] = reader.tag();
    const part = parts.get(number);
    if (part === undefined) {
      // Passed over when it is read, too.
      reader.skip(wireType, number);
      continue;
    }
    budget.left--;
    if (wireType !== WireType.LengthDelimited) {
      if (budget.left < 0) return { field: part.field.name, description: DESCRIPTION };
      reader.skip(wireType, number);
      continue;
    }
    const { field, message, isPacked } = part;
    const length = reader.uint32();
    const stop = reader.pos + length;
    const index = counts.get(number) ?? 0;
    if (field.fieldKind === "list") counts.set(number, index + 1);
    if (isPacked) budget.left -= length;
    const name = field.fieldKind === "list" && !isPacked ? `${field.name}[${index}]` : field.name;
    if (budget.left < 0) return { field: name, description: DESCRIPTION };
    if (message !== undefined) {
      const found =
        field.fieldKind === "map" ? inEntry(message, reader, stop, budget) : inMessage(message, reader, stop, budget);
      // Beyond a Struct its entries have no names of their own.
      if (found !== undefined) return found.field === "" ? { ...found, field: name } : within(name, message, found);
    }
    reader.pos = stop;
  }
  return undefined;
}

/** On the wire an entry of a map is a message of a key, 1, and a value, 2. */
function inEntry(
  message: DescMessage,
  reader: BinaryReader,
  end: number,
  budget: { left: number },
): FieldFault | undefined {
  while (reader.pos < end) {
    const [number, wireType] = reader.tag();
    if (budget.left-- < 0) return { field: "", description: DESCRIPTION };
    if (number === 2 && wireType === WireType.LengthDelimited) {
      const stop = reader.uint32() + reader.pos;
      const found = inMessage(message, reader, stop, budget);
      if (found !== undefined) return { ...found, field: "" };
      reader.pos = stop;
    } else reader.skip(wireType, number);
  }
  return undefined;
}

function within(name: string, message: DescMessage, found: FieldFault): FieldFault {
  return { ...found, field: isWellKnown(message) ? name : `${name}.${found.field}` };
}

function isWellKnown({ typeName }: DescMessage): boolean {
  return typeName.startsWith("google.protobuf.");
}

function snakeCased(key: string): string {
  return /^\w{1,64}$/.test(key) ? key.replaceAll(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`) : "";
}

/** A pure function's memory: schemas are constants of the program. */
const known = new WeakMap<DescMessage, Parts>();

function partsOf(schema: DescMessage): Parts {
  const found = known.get(schema);
  if (found !== undefined) return found;
  const parts: Parts = new Map(
    schema.fields.map((field) => [field.number, { field, message: field.message, isPacked: mayBePacked(field) }]),
  );
  known.set(schema, parts);
  return parts;
}

function mayBePacked(field: DescField): boolean {
  if (field.fieldKind !== "list") return false;
  if (field.listKind === "enum") return true;
  return field.listKind === "scalar" && field.scalar !== ScalarType.STRING && field.scalar !== ScalarType.BYTES;
}
