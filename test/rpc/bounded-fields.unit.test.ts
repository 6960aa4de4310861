import { type DescField, type DescMessage, getOption, ScalarType } from "@bufbuild/protobuf";
import { expect, test } from "vitest";
import { type FieldRules, field as fieldOption, type StringRules } from "#gen/buf/validate/validate_pb.ts";
import { planOf } from "#src/rpc/oversize/bounds.ts";
import { METHODS } from "../support/contract.ts";

// Whatever in a request can be long says how long it may be: else nothing but the size of the whole message bounds it,
// and a new field would be one more way to four megabytes.

const fields = new Map<string, DescField>();
for (const { input } of METHODS) collect(input);

function collect(desc: DescMessage): void {
  // Duration, Timestamp and what a Struct is made of; the Struct itself is a field.
  if (desc.typeName.startsWith("google.protobuf.") && desc.typeName !== "google.protobuf.FieldMask") return;
  for (const field of desc.fields) {
    const name = `${desc.typeName}.${field.name}`;
    if (fields.has(name)) continue;
    fields.set(name, field);
    if (field.message !== undefined) collect(field.message);
  }
}

test("every field of a request that can be long is bounded, what only the server sets as well", () => {
  expect(fields.size).toBeGreaterThan(250);
  expect([...fields].filter(([, field]) => !isBounded(field)).map(([name]) => name)).toEqual([]);
});

test("every list, map, Struct and text with a greatest length is refused for its size before it is decoded", () => {
  for (const [name, field] of fields) {
    const rules = getOption(field, fieldOption);
    const hasMax =
      isMany(field) || field.message?.typeName === "google.protobuf.Struct" || lengthOf(rules)?.maxLen !== undefined;
    if (hasMax) expect([name, planOf(field.parent).fields.get(field.number)?.bound]).toEqual([name, expect.anything()]);
  }
});

function isBounded(field: DescField): boolean {
  const { bound } = planOf(field.parent).fields.get(field.number) ?? {};
  if (isMany(field)) return bound !== undefined && isBoundedItem(field);
  return isShort(field, getOption(field, fieldOption)) || bound !== undefined;
}

/** Of a list or a map: all that is in it, keys included. */
function isBoundedItem(field: DescField): boolean {
  if (field.parent.typeName === "google.protobuf.FieldMask") return true;
  const { type } = getOption(field, fieldOption);
  if (field.fieldKind === "map") {
    const rules = type.case === "map" ? type.value : undefined;
    const keys = field.mapKey !== ScalarType.STRING || isShortText(rules?.keys);
    return keys && (field.scalar !== ScalarType.STRING || isShortText(rules?.values));
  }
  return isShort(field, type.case === "repeated" ? type.value.items : undefined);
}

function isMany(field: DescField): boolean {
  return field.fieldKind === "list" || field.fieldKind === "map";
}

/** A number, a message, of which the fields are asked themselves, or a text or bytes of bounded length. */
function isShort(field: DescField, rules: FieldRules | undefined): boolean {
  if (field.message !== undefined) return field.message.typeName !== "google.protobuf.Struct";
  if (field.scalar === ScalarType.STRING) return isShortText(rules);
  return field.scalar !== ScalarType.BYTES || lengthOf(rules)?.maxLen !== undefined;
}

function lengthOf(rules: FieldRules | undefined): { maxLen: bigint } | undefined {
  const { type } = rules ?? {};
  if (type?.case !== "string" && type?.case !== "bytes") return undefined;
  return type.value.maxLen > 0n ? type.value : undefined;
}

function isShortText(rules: FieldRules | undefined): boolean {
  const { type } = rules ?? {};
  if (type?.case !== "string") return false;
  const { maxLen, maxBytes, wellKnown } = type.value;
  return maxLen > 0n || maxBytes > 0n || wellKnown.case === "uuid" || hasShortPattern(type.value);
}

/** From beginning to end, and nothing in it repeats without an end. */
function hasShortPattern({ pattern }: StringRules): boolean {
  const outsideClasses = pattern.replaceAll(/\\./g, "c").replaceAll(/\[[^\]]*\]/g, "c");
  return /^\^.*\$$/.test(pattern) && !/[*+]|\{\d+,\}/.test(outsideClasses);
}
