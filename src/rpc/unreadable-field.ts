import {
  type DescField,
  type DescMessage,
  fromBinary,
  fromJson,
  type JsonObject,
  type JsonValue,
} from "@bufbuild/protobuf";
import { BinaryReader, WireType } from "@bufbuild/protobuf/wire";
import { type JsonPath, keyGivenTwice } from "./key-given-twice.ts";

/** So many are read at once: a request may hold two million, and only where they cannot be read are they read singly. */
const BLOCK = 256;
/** Parts of a name at most: each is looked for in all that is within it, and a message may be in itself thousands of times. */
const MAX_DEPTH = 16;

/**
 * Which field of a request it is that cannot be read, such as `items[3].content.title`: libraries say only that it is
 * one, or name its last part. Empty when the request as a whole cannot be read. Total; for requests that were refused,
 * so it tries part after part, in about the time that reading the request took. What is deeper than sixteen fields is named
 * by the one that it is within.
 */
export function unreadableField(schema: DescMessage, bytes: Uint8Array, form: "binary" | "json"): string {
  return orNone(() =>
    form === "binary" ? inBinary(schema, bytes, MAX_DEPTH) : inText(schema, Buffer.from(bytes).toString()),
  );
}

function orNone(look: () => string): string {
  try {
    return look();
  } catch {
    return "";
  }
}

function inText(schema: DescMessage, text: string): string {
  const field = inJson(schema, JSON.parse(text));
  return field === "" ? nameAt(schema, keyGivenTwice(text) ?? []) : field;
}

/** The field at a path, or the one it is within whose parts have no names of their own: a map, a Struct. */
function nameAt(schema: DescMessage, path: JsonPath): string {
  let name = "";
  let at: DescMessage | undefined = schema;
  for (const part of path) {
    if (at === undefined || isWellKnown(at)) break;
    if (typeof part === "number") {
      if (name === "") break;
      name = `${name}[${part}]`;
      continue;
    }
    const field = fieldNamed(at, part);
    if (field === undefined) break;
    name = name === "" ? field.name : join(name, field.name);
    if (field.fieldKind === "map") break;
    at = field.message;
  }
  return name;
}

function inJson(schema: DescMessage, json: JsonValue): string {
  if (!isObject(json) || isWellKnown(schema)) return "";
  for (const block of blocksOf(Object.entries(json))) {
    if (isRead(schema, Object.fromEntries(block))) continue;
    for (const [key, value] of block) {
      const field = fieldNamed(schema, key);
      // A key that there is not is named as it was given, as far as it looks like a name.
      if (field === undefined) return /^\w{1,64}$/.test(key) ? key : "";
      if (!isRead(schema, { [key]: value })) return join(field.name, insideJson(schema, field, key, value));
    }
  }
  return givenTwice(schema, Object.keys(json));
}

/** Where each can be read by itself: the second of what may be there once, by both of its names or as a choice of one. */
function givenTwice(schema: DescMessage, keys: readonly string[]): string {
  const given = new Set<unknown>();
  for (const key of keys) {
    const field = fieldNamed(schema, key);
    const place = field?.oneof ?? field;
    if (place !== undefined && given.has(place)) return field?.name ?? "";
    given.add(place);
  }
  return "";
}

function fieldNamed(schema: DescMessage, key: string): DescField | undefined {
  return schema.fields.find(({ jsonName, name }) => jsonName === key || name === key);
}

function insideJson(schema: DescMessage, field: DescField, key: string, value: JsonValue): string {
  const deeper = (part: JsonValue) => (field.message === undefined ? "" : inJson(field.message, part));
  if (field.fieldKind === "message") return deeper(value);
  if (field.fieldKind !== "list" || !Array.isArray(value)) return "";
  let before = 0;
  for (const block of blocksOf(value)) {
    if (!isRead(schema, { [key]: block })) {
      const index = block.findIndex((item) => !isRead(schema, { [key]: [item] }));
      return index < 0 ? "" : join(`[${before + index}]`, deeper(block[index] ?? null));
    }
    before += block.length;
  }
  return "";
}

function* blocksOf<T>(all: readonly T[]): Generator<T[]> {
  for (let start = 0; start < all.length; start += BLOCK) yield all.slice(start, start + BLOCK);
}

function isRead(schema: DescMessage, json: JsonObject): boolean {
  try {
    fromJson(schema, json);
    return true;
  } catch {
    return false;
  }
}

/** One field as it stands in a message: from its tag on. */
type Part = { field: DescField | undefined; wireType: WireType; index: number; start: number; inner: number };

function inBinary(schema: DescMessage, bytes: Uint8Array, depth: number): string {
  if (isWellKnown(schema) || depth === 0) return "";
  const byNumber = new Map(schema.fields.map((field) => [field.number, field]));
  const reader = new BinaryReader(bytes);
  const seen = new Map<DescField, number>();
  while (reader.pos < reader.len) {
    const parts: Part[] = [];
    const begin = reader.pos;
    let isWhole = true;
    while (isWhole && parts.length < BLOCK && reader.pos < reader.len) {
      const start = reader.pos;
      const [number, wireType] = reader.tag();
      const field = byNumber.get(number);
      const index = field === undefined ? 0 : (seen.get(field) ?? 0);
      if (field !== undefined) seen.set(field, index + 1);
      parts.push({ field, wireType, index, start, inner: reader.pos });
      isWhole = skips(reader, wireType, number);
    }
    const end = isWhole ? reader.pos : bytes.length;
    if (isWhole && canBeRead(schema, bytes.subarray(begin, end))) continue;
    const bad = parts.findIndex(({ start }, n) => {
      const next = parts[n + 1];
      if (next === undefined && !isWhole) return true;
      return !canBeRead(schema, bytes.subarray(start, next?.start ?? end));
    });
    const part = parts[bad];
    if (part !== undefined) return nameOf(part, bytes, depth);
  }
  return "";
}

function nameOf({ field, wireType, index, inner }: Part, bytes: Uint8Array, depth: number): string {
  if (field === undefined) return "";
  const name = field.fieldKind === "list" ? `${field.name}[${index}]` : field.name;
  if (wireType !== WireType.LengthDelimited || field.message === undefined || field.fieldKind === "map") return name;
  const { message } = field;
  return join(
    name,
    orNone(() => inBinary(message, new BinaryReader(bytes.subarray(inner)).bytes(), depth - 1)),
  );
}

function skips(reader: BinaryReader, wireType: WireType, number: number): boolean {
  try {
    reader.skip(wireType, number);
    return true;
  } catch {
    return false;
  }
}

function canBeRead(schema: DescMessage, bytes: Uint8Array): boolean {
  try {
    fromBinary(schema, bytes);
    return true;
  } catch {
    return false;
  }
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
