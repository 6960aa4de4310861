import { create, fromBinary, type MessageInitShape, toBinary } from "@bufbuild/protobuf";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { PayloadWordingSchema } from "#gen/posthorn/v1/type_service_pb.ts";
import { compile } from "#src/types/payload/contract.ts";
import { readDescriptorSet } from "#src/types/payload/descriptor-set.ts";
import { judging } from "#src/types/payload/judging.ts";
import { compileWording, wordingBreaks, wordingFaults } from "#src/types/payload/wording.ts";
import { build } from "../../support/descriptors.ts";

const judges = judging();

function messageOf(fields: string, { syntax = 'syntax = "proto3";', more = "" } = {}) {
  const text = `${syntax}\npackage acme;\nimport "google/protobuf/wrappers.proto";\nimport "google/protobuf/timestamp.proto";
    message Shipped { ${fields} } message Used { optional google.protobuf.StringValue a = 1; optional google.protobuf.Timestamp b = 2; } ${more}`;
  const set = readDescriptorSet(build({ "acme/shipped.proto": text }), "acme.Shipped");
  return compile(set.files, "acme.Shipped", judges).desc;
}

const KINDS = `string s = 1; int32 i = 2; uint64 u = 3; sint64 z = 4; bool b = 5; bytes raw = 6; float f = 7; double d = 8;
  Colour colour = 9; google.protobuf.StringValue w = 10; google.protobuf.Int64Value n = 11; optional int32 opt = 12;
  Order order = 13; oneof way { string street = 14; google.protobuf.BoolValue shop = 15; } int64 text_id = 16 [jstype = JS_STRING];
  repeated string tags = 17; map<string, string> map = 18; google.protobuf.Timestamp at = 19;`;
const desc = messageOf(KINDS, {
  more: `enum Colour { NONE = 0; RED = 1; } message Order { string number = 1; Order parent = 2; optional bool gift = 3; }`,
});

const stored = (wording: MessageInitShape<typeof PayloadWordingSchema>) =>
  toBinary(PayloadWordingSchema, create(PayloadWordingSchema, wording));
const titled = (title: string, body = "") => stored({ title, body });
const wordsFor = (title: string, payload: object, body = "") =>
  // As it comes: decoded.
  compileWording(titled(title, body), desc).words(fromBinary(desc, toBinary(desc, create(desc, payload as never))));
const textOf = (path: string, payload: object) => wordsFor(`.{${path}}.`, payload).title.slice(1, -1);

describe("the text of a field", () => {
  test.each<[string, object, string]>([
    ["s", { s: "Ada's {s} <b>" }, "Ada's {s} <b>"],
    ["i", { i: -7 }, "-7"],
    ["u", { u: 2n ** 64n - 1n }, "18446744073709551615"],
    ["z", { z: -(2n ** 63n) }, "-9223372036854775808"],
    ["b", { b: true }, "true"],
    ["raw", { raw: new Uint8Array([255, 254]) }, "//4="],
    ["f", { f: 0.1 }, "0.1"],
    ["f", { f: Number.POSITIVE_INFINITY }, "Infinity"],
    ["d", { d: 0.1 }, "0.1"],
    ["d", { d: Number.NaN }, "NaN"],
    ["colour", { colour: 1 }, "RED"],
    ["colour", { colour: 7 }, "7"],
    ["w", { w: "wrapped" }, "wrapped"],
    ["n", { n: -1n }, "-1"],
    ["opt", { opt: 0 }, "0"],
    ["order.number", { order: { number: "A-17" } }, "A-17"],
    ["order.parent.number", { order: { parent: { number: "A-1" } } }, "A-1"],
    ["street", { way: { case: "street", value: "Main St" } }, "Main St"],
    ["textId", { textId: "12" }, "12"],
    ["text_id", { textId: "12" }, "12"],
  ])("%s of %o is %s", (path, payload, text) => {
    expect(textOf(path, payload)).toBe(text);
  });

  test.each<[string, string]>([
    ...(["s", "opt", "w", "n", "order.number", "order.gift", "street", "shop", "raw"] as const).map(
      (path): [string, string] => [path, ""],
    ),
    ...(["i", "u", "z", "f", "d", "text_id"] as const).map((path): [string, string] => [path, "0"]),
    ["b", "false"],
    ["colour", "NONE"],
  ])("that is absent: %s is %j", (path, text) => {
    expect(textOf(path, {})).toBe(text);
  });

  test("that is absent and has a default is that", () => {
    const old = messageOf(
      'optional string s = 1 [default = "nobody"]; optional int32 n = 2; optional bool b = 3 [default = true];',
      {
        syntax: 'syntax = "proto2";',
      },
    );
    const words = compileWording(titled("{s},{n},{b}"), old).words(create(old));
    expect(words.title).toBe("nobody,,true");
  });

  test("of 32 bits is the shortest that reads back as it", () => {
    fc.assert(
      fc.property(fc.float({ noNaN: true }), (f) => {
        const text = textOf("f", { f });
        expect(Math.fround(Number(text)) === f).toBe(true);
        expect(text.replace(/^-|\.|e.*$/g, "").length).toBeLessThanOrEqual(46);
      }),
    );
  });
});

test("what is filled in is no template, and never more than one line of 255 characters, well-formed", () => {
  const value = fc.string({ unit: "binary", maxLength: 400 });
  fc.assert(
    fc.property(value, value, (s, number) => {
      const { title, body } = wordsFor("{s}{{x}} {order.number}", { s, order: { number } }, "{s}{s}{s}");
      expect([...title].length).toBeLessThanOrEqual(255);
      expect([...body].length).toBeLessThanOrEqual(8000);
      // biome-ignore lint/suspicious/noControlCharactersInRegex: that there are none is the point.
      expect(title).not.toMatch(/[\u0000-\u001f\u007f-\u009f\u2028\u2029]/);
      // biome-ignore lint/suspicious/noControlCharactersInRegex: that there are none is the point.
      expect(body).not.toMatch(/[\u0000-\u0008\u000b-\u001f\u007f-\u009f]/);
      expect(title.isWellFormed() && body.isWellFormed()).toBe(true);
    }),
  );
  expect(wordsFor("{s}", { s: "{order.number}" }).title).toBe("{order.number}");
  expect(wordsFor("{{s}} {s}", { s: "x" }).title).toBe("{s} x");
  expect(wordsFor("{s}", { s: "a\r\n\tb\u2028c" }).title).toBe("a b c");
  expect(wordsFor("t", { s: "a\r\n\tb\u0007" }, "{s}").body).toBe("a\n\tb");
});

test("a title that is too long is cut by characters, and says so", () => {
  const { title, body } = wordsFor("{s}", { s: "🎉".repeat(300) }, "{s}".repeat(50));
  expect([...title]).toHaveLength(255);
  expect(title.endsWith("🎉…")).toBe(true);
  expect([...body]).toHaveLength(8000);
});

test("the language is looked up as a batch's is, and what it leaves empty is as in none", () => {
  const words = compileWording(
    stored({ title: "{s} left", body: "b", translations: { de: { title: "{s} ist weg" }, "pt-BR": { body: "c" } } }),
    desc,
  );
  const payload = create(desc, { s: "It" } as never);
  expect(words.words(payload)).toEqual({ title: "It left", body: "b" });
  expect(words.wordsIn?.(payload, "de-AT")).toEqual({ title: "It ist weg", body: "b" });
  expect(words.wordsIn?.(payload, "PT-br")).toEqual({ title: "It left", body: "c" });
  expect(words.wordsIn?.(payload, "pt")).toBeUndefined();
  expect(compileWording(titled("x"), desc).wordsIn).toBeUndefined();
});

test.each<[string, string]>([
  ["{nope}", '"{nope}": acme.Shipped has no field "nope"'],
  ["{order.nope}", '"{order.nope}": acme.Order has no field "nope"'],
  ["{s.length}", '"{s.length}": s is no message'],
  ["{order}", '"{order}": a acme.Order has no text of its own'],
  ["{at}", '"{at}": a google.protobuf.Timestamp has no text of its own'],
  ["{at.seconds}", '"{at.seconds}": at is no message'],
  ["{tags}", '"{tags}": tags has several values'],
  ["{map}", '"{map}": map has several values'],
  ["{map.key}", '"{map.key}": map has several values'],
  ["{__proto__}", '"{__proto__}": acme.Shipped has no field "__proto__"'],
  ["{s", 'has a "{" that begins or ends no field: write {field.path}, or {{'],
  ["s}", 'has a "}" that begins or ends no field: write {field.path}, or }}'],
  ["{ s }", 'has a "{" that begins or ends no field: write {field.path}, or {{'],
  ["{}", 'has a "{" that begins or ends no field: write {field.path}, or {{'],
  [`{${"order.parent.".repeat(5)}number}`, 'has a "{" that begins or ends no field: write {field.path}, or {{'],
])("%s is refused: %s", (title, description) => {
  expect(wordingFaults(titled(title), desc)).toEqual([{ field: "wording.title", description }]);
});

test("every text of a wording is read, and each fault has its place", () => {
  const wording = stored({ title: "{a}", body: "{", translations: { de: { title: "{c}", body: "{s}" } } });
  expect(wordingFaults(wording, desc).map(({ field }) => field)).toEqual([
    "wording.title",
    "wording.body",
    'wording.translations["de"].title',
  ]);
  expect(wordingFaults(wording, undefined).map(({ field }) => field)).toEqual(["wording.body"]);
  expect(wordingFaults(null, desc)).toEqual([]);
});

test("a version breaks a wording whose field it takes away, makes a list or gives another type, and no other", () => {
  const before = messageOf("string s = 1; int32 i = 2; string t = 3;");
  const breaks = (fields: string) =>
    wordingBreaks(titled("{s} {s}", "{i}"), before, messageOf(fields)).map(
      ({ rule, path, description }) => `${rule} ${path} ${description}`,
    );
  expect(breaks("string s = 1; int32 i = 2;")).toEqual([]);
  expect(breaks('reserved 1; reserved "s"; int32 i = 2;')).toEqual([
    'PAYLOAD_WORDING wording.title "{s}": acme.Shipped has no field "s"',
  ]);
  expect(breaks("repeated string s = 1; int32 i = 2;")).toEqual([
    'PAYLOAD_WORDING wording.title "{s}": s has several values',
  ]);
  expect(breaks("string s = 1; uint32 i = 2;")).toEqual([
    'PAYLOAD_WORDING wording.body "{i}": was of type int32, is uint32 now',
  ]);
  expect(wordingBreaks(titled("{x}"), undefined, before)).toHaveLength(1);
});
