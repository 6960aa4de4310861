import { create, fromBinary, toBinary, toJson } from "@bufbuild/protobuf";
import { BinaryWriter, WireType } from "@bufbuild/protobuf/wire";
import { anyPack } from "@bufbuild/protobuf/wkt";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { compile } from "#src/types/payload/contract.ts";
import { readDescriptorSet } from "#src/types/payload/descriptor-set.ts";
import { judging } from "#src/types/payload/judging.ts";
import { type Payload, type Refused, readAny, readBytes, readJson } from "#src/types/payload/read.ts";
import { shipped } from "../../support/descriptors.ts";

const judges = judging();

function contractOf(body: string, more = "") {
  const files = readDescriptorSet(shipped(body, { more }), "acme.Shipped").files;
  return { id: "1", version: 3, ...compile(files, "acme.Shipped", judges) };
}

const ORDER = contractOf(
  `string order = 1 [(buf.validate.field).string.min_len = 3];
   int32 parcels = 2 [(buf.validate.field).int32.gt = 0];
   repeated Item items = 3;
   map<string, int64> weights = 4;
   google.protobuf.Timestamp at = 5;
   optional bool gift = 6;
   oneof to { string street = 7; string shop = 8; }
   Colour colour = 9;`,
  `message Item { string sku = 1 [(buf.validate.field).string.pattern = "^[A-Z]{2}[0-9]+$"]; Item part = 2; }
   enum Colour { COLOUR_UNSPECIFIED = 0; COLOUR_RED = 1; }`,
);

const faultsOf = (read: Payload | Refused) =>
  "faults" in read ? read.faults.map(({ field, description }) => `${field}: ${description}`) : [];
const good = { order: "A-1", parcels: 2 };

test("JSON and the packed message are one payload: the same bytes, the same JSON", () => {
  const value = fc.record({
    order: fc.string({ minLength: 3, maxLength: 20 }).filter((text) => [...text].length >= 3),
    parcels: fc.integer({ min: 1, max: 2 ** 31 - 1 }),
    items: fc.array(fc.record({ sku: fc.nat().map((n) => `AB${n}`) }), { maxLength: 3 }),
    weights: fc.dictionary(fc.string({ maxLength: 5 }), fc.bigInt(-(2n ** 63n), 2n ** 63n - 1n)),
    gift: fc.boolean(),
    colour: fc.constantFrom(0, 1),
  });
  fc.assert(
    fc.property(value, (of) => {
      const message = create(ORDER.desc, of as never);
      const asAny = readAny(ORDER, anyPack(ORDER.desc, message)) as Payload;
      expect(faultsOf(asAny)).toEqual([]);
      const asJson = readJson(ORDER, toJson(ORDER.desc, message) as never) as Payload;
      expect(asJson.json).toEqual(asAny.json);
      expect(fromBinary(ORDER.desc, asJson.value)).toEqual(fromBinary(ORDER.desc, asAny.value));
    }),
  );
});

test("what is in itself thousands of times is refused at once, by a name that can be read", () => {
  const nested = (inner: Uint8Array) => new BinaryWriter().tag(2, WireType.LengthDelimited).bytes(inner).finish();
  let item = new Uint8Array();
  for (let depth = 0; depth < 4000; depth++) item = nested(item) as typeof item;
  const bytes = new BinaryWriter().tag(3, WireType.LengthDelimited).bytes(item).finish();
  const began = performance.now();
  expect(faultsOf(readBytes(ORDER, bytes))).toEqual([
    `items[0]${".part".repeat(15)}: cannot be read as acme.Shipped (version 3)`,
  ]);
  expect(performance.now() - began).toBeLessThan(300);
});

test("what breaks a rule is named by its path, with the rule", () => {
  expect(faultsOf(readJson(ORDER, { order: "A", items: [{ sku: "AB1", part: { sku: "x" } }] }))).toEqual([
    "order: must be at least 3 characters (string.min_len)",
    "parcels: must be greater than 0 (int32.gt)",
    "items[0].part.sku: does not match regex pattern `^[A-Z]{2}[0-9]+$` (string.pattern)",
  ]);
});

test("what is no such message is named by its path", () => {
  const refusals = (json: object) => faultsOf(readJson(ORDER, json as never));
  expect(refusals({ ...good, nope: 1 })).toEqual(["nope: is unknown to acme.Shipped (version 3)"]);
  expect(refusals({ ...good, items: [{ sku: "AB1", nope: 1 }] })).toEqual([
    "items[0].nope: is unknown to acme.Shipped (version 3)",
  ]);
  // Without the value itself.
  expect(refusals({ ...good, parcels: "many" })).toEqual([
    "parcels: cannot be read as acme.Shipped (version 3): expected number (int32)",
  ]);
  expect(refusals({ ...good, colour: "COLOUR_GREEN" })).toEqual(["colour: cannot be read as acme.Shipped (version 3)"]);
  expect(refusals({ ...good, street: "a", shop: "b" })).toHaveLength(1);
  expect(faultsOf(readBytes(ORDER, new Uint8Array([10, 200])))).toEqual([
    "order: cannot be read as acme.Shipped (version 3)",
  ]);
  expect(
    faultsOf(readAny(ORDER, { $typeName: "google.protobuf.Any", typeUrl: "x/acme.Other", value: new Uint8Array() })),
  ).toEqual([": must be a acme.Shipped, not acme.Other"]);
});

test("fields that the contract does not know stay in the bytes, and are not in the JSON", () => {
  const newer = contractOf("string order = 1; int32 parcels = 2; string later = 99;");
  const bytes = toBinary(newer.desc, create(newer.desc, { ...good, later: "x" } as never));
  const read = readBytes(ORDER, bytes) as Payload;
  expect(read.value).toEqual(bytes);
  expect(read.json).toEqual({ order: "A-1", parcels: 2 });
});

describe("a payload that is too much is refused before its rules are asked", () => {
  const price = (contract: ReturnType<typeof contractOf>, json: object) => faultsOf(readJson(contract, json as never));
  test("for rules that compare each with each", () => {
    const each = contractOf(
      `repeated string names = 1 [(buf.validate.field).cel = {id: "x", message: "m", expression: "this.all(a, a in this)"}];`,
    );
    expect(price(each, { names: Array(20).fill("a") })).toEqual([]);
    expect(price(each, { names: Array(4000).fill("a") })).toEqual([
      ": is too much for the rules of its message: send less in it",
    ]);
  });
  test("for large patterns on many texts", () => {
    const large = contractOf(
      'repeated string names = 1 [(buf.validate.field).repeated.items.string.pattern = "^(a|b|c|d){0,200}x$"];',
    );
    expect(price(large, { names: ["x", "ax"] })).toEqual([]);
    expect(price(large, { names: Array(1000).fill("abababababab") })[0]).toMatch(/too much/);
  });
});

test("a message that contains itself is read to a depth, and no deeper", () => {
  let part: object = { sku: "AB1" };
  for (let n = 0; n < 200; n++) part = { sku: "AB1", part };
  expect(faultsOf(readJson(ORDER, { ...good, items: [part] } as never))).toHaveLength(1);
});

test("a rule that cannot be run on a payload refuses it, and says so", () => {
  const odd = contractOf(
    'int32 a = 1; option (buf.validate.message).cel = {id: "odd", message: "m", expression: "10 / this.a > 0"};',
  );
  expect(faultsOf(readJson(odd, { a: 0 }))[0]).toMatch(/its expression fails$/);
  expect(faultsOf(readJson(odd, { a: 1 }))).toEqual([]);
  const told = contractOf(
    'string a = 1; option (buf.validate.message).cel = {id: "odd", message: "m", expression: "int(this.a) > 0"};',
  );
  expect(faultsOf(readJson(told, { a: "secret 4711" }))).toEqual([
    ": is nothing that a rule of its message can be asked about: its expression fails",
  ]);
});

test("contracts that share a validator do not hear of each other, also when it is a new one", () => {
  const few = judging(2);
  const versions = Array.from({ length: 6 }, (_, n) => {
    const { files } = readDescriptorSet(
      shipped(`string order = 1 [(buf.validate.field).string.min_len = ${n + 1}];`),
      "acme.Shipped",
    );
    return { id: `${n}`, version: n, ...compile(files, "acme.Shipped", few) };
  });
  for (const round of [1, 2]) {
    versions.forEach((contract, n) => {
      expect(faultsOf(readJson(contract, { order: "x".repeat(n) })), `round ${round}`).toHaveLength(1);
      expect(faultsOf(readJson(contract, { order: "x".repeat(n + 1) }))).toEqual([]);
    });
  }
});
