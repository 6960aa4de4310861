import { execFileSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, test } from "vitest";
import { breaksBetween } from "#src/types/payload/breaks.ts";
import { compile } from "#src/types/payload/contract.ts";
import { readDescriptorSet } from "#src/types/payload/descriptor-set.ts";
import { judging } from "#src/types/payload/judging.ts";
import { shipped } from "../../support/descriptors.ts";

const judges = judging();
const BUF = join(import.meta.dirname, "../../../node_modules/.bin/buf");

type Version = { body: string; more?: string; syntax?: string };
const FIELDS = "string order = 1; int32 parcels = 2; repeated string tags = 3; Colour colour = 4; Item item = 5;";
const MORE = `message Item { string sku = 1; int64 weight = 2; oneof of { string a = 3; string b = 4; } }
  enum Colour { COLOUR_UNSPECIFIED = 0; COLOUR_RED = 1; COLOUR_BLUE = 2; }`;
const FIRST: Version = { body: FIELDS, more: MORE };

function setOf({ body, more = MORE, syntax = "proto3" }: Version): Uint8Array {
  return shipped(body, { more, syntax });
}

function breaks(before: Version, after: Version): string[] {
  const [old, now] = [before, after].map((version) => {
    const { files } = readDescriptorSet(setOf(version), "acme.Shipped");
    return compile(files, "acme.Shipped", judges).desc;
  });
  if (old === undefined || now === undefined) throw new Error("nothing to compare");
  return breaksBetween(old, now).map(({ rule, path }) => `${rule} ${path}`);
}

/** The rules that `buf breaking` says are broken. */
function asBuf(before: Version, after: Version): string[] {
  const dir = mkdtempSync(join(tmpdir(), "posthorn-breaks-"));
  try {
    const [was, is] = ["was.binpb", "is.binpb"].map((name) => join(dir, name));
    writeFileSync(was ?? "", setOf(before));
    writeFileSync(is ?? "", setOf(after));
    const config = '{"version":"v2","breaking":{"use":["WIRE_JSON"]}}';
    try {
      execFileSync(BUF, ["breaking", is ?? "", "--against", was ?? "", "--config", config, "--error-format", "json"], {
        stdio: ["ignore", "pipe", "pipe"],
      });
      return [];
    } catch (error) {
      const out = String((error as { stdout?: Buffer }).stdout ?? "");
      const lines = out.split("\n").filter((line) => line.startsWith("{"));
      if (lines.length === 0) throw error;
      return lines.map((line) => (JSON.parse(line) as { type: string }).type);
    }
  } finally {
    rmSync(dir, { recursive: true, force: true });
  }
}

const replaced = (from: string, to: string): Version => ({ body: FIELDS.replace(from, to) });
const inMore = (from: string, to: string): Version => ({ body: FIELDS, more: MORE.replace(from, to) });

const CASES: Record<string, [Version, Version, string[]]> = {
  "a field more": [FIRST, replaced("int32 parcels", "bool gift = 9; int32 parcels"), []],
  "a message and a value more": [FIRST, inMore("COLOUR_BLUE = 2;", "COLOUR_BLUE = 2; COLOUR_GREEN = 3;"), []],
  "a field gone": [
    FIRST,
    replaced("int32 parcels = 2;", ""),
    [
      "FIELD_NO_DELETE_UNLESS_NUMBER_RESERVED acme.Shipped.parcels",
      "FIELD_NO_DELETE_UNLESS_NAME_RESERVED acme.Shipped.parcels",
    ],
  ],
  "a field gone, its number and name reserved": [
    FIRST,
    replaced("int32 parcels = 2;", 'reserved 2; reserved "parcels";'),
    [],
  ],
  "a reservation gone": [
    replaced("int32 parcels = 2;", 'reserved 2; reserved "parcels";'),
    replaced("int32 parcels = 2;", ""),
    ["RESERVED_MESSAGE_NO_DELETE acme.Shipped", "RESERVED_MESSAGE_NO_DELETE acme.Shipped"],
  ],
  "a field renamed": [
    FIRST,
    replaced("parcels", "packets"),
    ["FIELD_SAME_NAME acme.Shipped.parcels", "FIELD_SAME_JSON_NAME acme.Shipped.parcels"],
  ],
  "another name in JSON": [
    FIRST,
    replaced("parcels = 2", 'parcels = 2 [json_name = "p"]'),
    ["FIELD_SAME_JSON_NAME acme.Shipped.parcels"],
  ],
  "another type": [
    FIRST,
    replaced("int32 parcels", "string parcels"),
    ["FIELD_WIRE_JSON_COMPATIBLE_TYPE acme.Shipped.parcels"],
  ],
  "a type that reads as the other": [FIRST, replaced("int32 parcels", "uint32 parcels"), []],
  "a type that does only in binary": [
    FIRST,
    replaced("int32 parcels", "int64 parcels"),
    ["FIELD_WIRE_JSON_COMPATIBLE_TYPE acme.Shipped.parcels"],
  ],
  "a list instead": [
    FIRST,
    replaced("int32 parcels", "repeated int32 parcels"),
    ["FIELD_WIRE_JSON_COMPATIBLE_CARDINALITY acme.Shipped.parcels"],
  ],
  "presence told": [FIRST, replaced("int32 parcels", "optional int32 parcels"), []],
  "a field in a oneof": [
    FIRST,
    replaced("int32 parcels = 2;", "oneof of { int32 parcels = 2; }"),
    ["FIELD_SAME_ONEOF acme.Shipped.parcels"],
  ],
  "deep inside, a field gone": [
    FIRST,
    inMore("int64 weight = 2;", ""),
    [
      "FIELD_NO_DELETE_UNLESS_NUMBER_RESERVED acme.Item.weight",
      "FIELD_NO_DELETE_UNLESS_NAME_RESERVED acme.Item.weight",
    ],
  ],
  "a value gone": [
    FIRST,
    inMore("COLOUR_RED = 1;", ""),
    [
      "ENUM_VALUE_NO_DELETE_UNLESS_NUMBER_RESERVED acme.Colour.COLOUR_RED",
      "ENUM_VALUE_NO_DELETE_UNLESS_NAME_RESERVED acme.Colour.COLOUR_RED",
    ],
  ],
  "a value gone, reserved": [FIRST, inMore("COLOUR_RED = 1;", 'reserved 1; reserved "COLOUR_RED";'), []],
  "a value renamed": [FIRST, inMore("COLOUR_RED", "COLOUR_ROUGE"), ["ENUM_VALUE_SAME_NAME acme.Colour.COLOUR_RED"]],
  "a stricter rule": [FIRST, replaced("order = 1", "order = 1 [(buf.validate.field).string.min_len = 9]"), []],
};

// Where buf has it too, it says the same of both.
for (const [what, [before, after, expected]] of Object.entries(CASES)) {
  test(what, () => {
    expect(breaks(before, after).toSorted()).toEqual(expected.toSorted());
    const rules = new Set(expected.map((each) => each.split(" ")[0]));
    expect(new Set(asBuf(before, after))).toEqual(rules);
  });
}

test("another message is another contract, and one that contains itself is compared once", () => {
  const desc = (body: string, name: string) => {
    const { files } = readDescriptorSet(shipped(body, { more: MORE }), name);
    return compile(files, name, judges).desc;
  };
  const other = breaksBetween(desc(FIELDS, "acme.Shipped"), desc(FIELDS, "acme.Item"));
  expect(other.map(({ rule }) => rule)).toEqual(["MESSAGE_SAME_NAME"]);
  const itself = "Shipped inner = 1; map<string, Shipped> more = 2; string gone = 3;";
  expect(
    breaksBetween(desc(itself, "acme.Shipped"), desc(itself.replace("string gone = 3;", ""), "acme.Shipped")).map(
      ({ path, file }) => [path, file],
    ),
  ).toEqual(Array(2).fill(["acme.Shipped.gone", "acme/shipped.proto"]));
});
