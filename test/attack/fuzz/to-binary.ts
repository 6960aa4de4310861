import { type DescField, fromJson, toBinary } from "@bufbuild/protobuf";
import { BinaryWriter, WireType } from "@bufbuild/protobuf/wire";
import { StructSchema } from "@bufbuild/protobuf/wkt";
import type { Entry, Resolve, Shape, Value } from "./shape.ts";

/** The bytes of a request. Written by hand, because a writer of messages would refuse most of what is tried. */
export function shapeToBinary(shape: Shape, resolve: Resolve, now: number): Uint8Array {
  const writer = new BinaryWriter();
  for (const entry of shape.entries) writeEntry(writer, entry, resolve, now);
  return writer.finish();
}

function writeEntry(writer: BinaryWriter, { field, key, value }: Entry, resolve: Resolve, now: number): void {
  if (key === undefined) {
    writeValue(writer, field.number, value, resolve, now);
    return;
  }
  const pair = new BinaryWriter();
  pair.tag(1, WireType.LengthDelimited).bytes(utf8(key));
  writeValue(pair, 2, value, resolve, now);
  writer.tag(field.number, WireType.LengthDelimited).bytes(pair.finish());
}

function writeValue(writer: BinaryWriter, no: number, value: Value, resolve: Resolve, now: number): void {
  switch (value.kind) {
    case "integer":
      // Ten bytes are a legal varint for an int32, an enum or a bool too.
      writer.tag(no, WireType.Varint).int64(BigInt.asIntN(64, value.integer));
      return;
    case "number":
      writer.tag(no, WireType.Bit64).double(value.number);
      return;
    default:
      writer.tag(no, WireType.LengthDelimited).bytes(delimited(value, resolve, now));
  }
}

function delimited(value: Exclude<Value, { kind: "integer" | "number" }>, resolve: Resolve, now: number): Uint8Array {
  switch (value.kind) {
    case "text":
      return utf8(value.text);
    case "bytes":
      return value.bytes;
    case "known":
      return utf8(resolve(value.pool, value.at, value.of));
    case "soon":
      return timestamp(now + value.ms);
    case "struct":
      return toBinary(StructSchema, fromJson(StructSchema, value.json, { recursionLimit: 10_000 }));
    case "shape":
      return shapeToBinary(value.shape, resolve, now);
    case "raw":
      return utf8(value.json);
    default:
      return value satisfies never;
  }
}

function timestamp(ms: number): Uint8Array {
  const writer = new BinaryWriter();
  writer.tag(1, WireType.Varint).int64(BigInt(Math.floor(ms / 1000)));
  return writer.finish();
}

/** As UTF-8, halves of surrogate pairs as the three bytes they would be if that were allowed. */
export function utf8(text: string): Uint8Array {
  if (text.isWellFormed()) return Buffer.from(text);
  return Buffer.concat(
    [...text].map((character) => {
      const code = character.codePointAt(0) ?? 0;
      if (code < 0xd800 || code > 0xdfff) return Buffer.from(character);
      return Buffer.from([0xe0 | (code >> 12), 0x80 | ((code >> 6) & 0x3f), 0x80 | (code & 0x3f)]);
    }),
  );
}

/** Whether a field's values are written one by one, each behind a tag: lists and maps. */
export function isMany(field: DescField): boolean {
  return field.fieldKind === "list" || field.fieldKind === "map";
}
