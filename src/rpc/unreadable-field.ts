import {
  type DescField,
  type DescMessage,
  fromBinary,
  fromJson,
  type JsonObject,
  type JsonValue,
} from "@bufbuild/protobuf";
import { BinaryReader, WireType } from "@bufbuild/protobuf/wire";

/**
 * Which field of a request it is that cannot be read, such as `items[3].content.title`: libraries say only that it is
 * one, or name its last part. Empty when the request as a whole cannot be read. Total; for requests that were refused,
 * so it tries each part by itself.
 */
export function unreadableField(schema: DescMessage, bytes: Uint8Array, form: "binary" | "json"): string {
  try {
    return form === "binary" ? inBinary(schema, bytes) : inJson(schema, JSON.parse(Buffer.from(bytes).toString()));
  } catch {
    return "";
  }
}

function inJson(schema: DescMessage, json: JsonValue): string {
  if (!isObject(json) || isWellKnown(schema)) return "";
  for (const [key, value] of Object.entries(json)) {
    const field = schema.fields.find(({ jsonName, name }) => jsonName === key || name === key);
    // A key that there is not is named as it was given, as far as it looks like a name.
    if (field === undefined) return /^\w{1,64}$/.test(key) ? key : "";
    if (!isRead(schema, { [key]: value })) return join(field.name, insideJson(schema, field, key, value));
  }
  return "";
}

function insideJson(schema: DescMessage, field: DescField, key: string, value: JsonValue): string {
  const deeper = (part: JsonValue) => (field.message === undefined ? "" : inJson(field.message, part));
  if (field.fieldKind === "message") return deeper(value);
  if (field.fieldKind !== "list" || !Array.isArray(value)) return "";
  const index = value.findIndex((item) => !isRead(schema, { [key]: [item] }));
  return index < 0 ? "" : join(`[${index}]`, deeper(value[index] ?? null));
}

function isRead(schema: DescMessage, json: JsonObject): boolean {
  try {
    fromJson(schema, json);
    return true;
  } catch {
    return false;
  }
}

function inBinary(schema: DescMessage, bytes: Uint8Array): string {
  if (isWellKnown(schema)) return "";
  const reader = new BinaryReader(bytes);
  const seen = new Map<number, number>();
  while (reader.pos < reader.len) {
    const start = reader.pos;
    const [number, wireType] = reader.tag();
    const inner = reader.pos;
    const field = schema.fields.find((each) => each.number === number);
    const index = seen.get(number) ?? 0;
    seen.set(number, index + 1);
    try {
      reader.skip(wireType, number);
      fromBinary(schema, bytes.subarray(start, reader.pos));
    } catch {
      if (field === undefined) return "";
      const name = field.fieldKind === "list" ? `${field.name}[${index}]` : field.name;
      if (wireType !== WireType.LengthDelimited || field.message === undefined || field.fieldKind === "map")
        return name;
      const content = new BinaryReader(bytes.subarray(inner));
      return join(name, unreadableField(field.message, content.bytes(), "binary"));
    }
  }
  return "";
}

function join(path: string, rest: string): string {
  if (rest === "" || rest.startsWith("[")) return path + rest;
  return `${path}.${rest}`;
}

/** Callers know these by their name, not by their fields. */
function isWellKnown(schema: DescMessage): boolean {
  return schema.typeName.startsWith("google.protobuf.");
}

function isObject(json: JsonValue): json is JsonObject {
  return typeof json === "object" && json !== null && !Array.isArray(json);
}
