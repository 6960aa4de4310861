import { create, type DescMessage, type MessageInitShape, toBinary } from "@bufbuild/protobuf";
import { BinaryWriter, WireType } from "@bufbuild/protobuf/wire";
import {
  type DescriptorProtoSchema,
  FieldOptionsSchema,
  type FileDescriptorProtoSchema,
  FileDescriptorSetSchema,
  FieldDescriptorProto_Label as Label,
  MessageOptionsSchema,
  OneofOptionsSchema,
  FieldDescriptorProto_Type as Type,
} from "@bufbuild/protobuf/wkt";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { compile } from "#src/types/payload/contract.ts";
import { DescriptorFault } from "#src/types/payload/descriptor-fault.ts";
import { readDescriptorSet } from "#src/types/payload/descriptor-set.ts";
import { judging } from "#src/types/payload/judging.ts";
import { shipped } from "../../support/descriptors.ts";

const judges = judging();
const RULED = `string order = 1 [(buf.validate.field).string.min_len = 3];
  int32 parcels = 2 [(buf.validate.field).cel = {id: "some", message: "none", expression: "this > 0"}];
  oneof by { option (buf.validate.oneof).required = true; string ship = 3; string plane = 4; }`;

type File = MessageInitShape<typeof FileDescriptorProtoSchema>;

const field = (name: string, number: number, more: object = {}) => ({
  name,
  number,
  label: Label.OPTIONAL,
  type: Type.STRING,
  ...more,
});
const file = (more: File = {}): File => ({
  name: "acme/a.proto",
  package: "acme",
  syntax: "proto3",
  messageType: [{ name: "A", field: [field("id", 1)] }],
  ...more,
});
const bytesOf = (...files: File[]) =>
  toBinary(FileDescriptorSetSchema, create(FileDescriptorSetSchema, { file: files }));

function take(bytes: Uint8Array, message = "acme.A") {
  return compile(readDescriptorSet(bytes, message).files, message, judges);
}

function refused(bytes: Uint8Array, message?: string): string {
  try {
    take(bytes, message);
  } catch (error) {
    if (error instanceof DescriptorFault) return error.message;
    throw error;
  }
  return "";
}

test("a set made by hand is taken when a compiler could have made it", () => {
  expect(take(bytesOf(file())).desc.typeName).toBe("acme.A");
});

describe("what no compiler makes is refused, by its name", () => {
  const withField = (more: object) =>
    bytesOf(file({ messageType: [{ name: "A", field: [field("id", 1), more as never] }] }));
  const beside = file({ dependency: ["x.proto"] });
  const cases: Record<string, [Uint8Array, RegExp]> = {
    "no set at all": [new TextEncoder().encode("syntax"), /no google.protobuf.FileDescriptorSet/],
    nothing: [new Uint8Array(), /declares no message "acme.A"/],
    "another message": [bytesOf(file({ messageType: [{ name: "B" }] })), /declares no message "acme.A"/],
    "a file twice": [bytesOf(file(), file()), /the file "acme\/a.proto" twice/],
    "a message twice": [bytesOf(file({ messageType: [{ name: "A" }, { name: "A" }] })), /"acme.A" is declared twice/],
    "a message in two files": [bytesOf(file(), file({ name: "acme/b.proto" })), /"acme.A" in "acme\/a.proto" and/],
    "an import that is missing": [
      bytesOf(file({ dependency: ["acme/b.proto"] })),
      /lacks "acme\/b.proto", which "acme\/a.proto"/,
    ],
    "imports in a circle": [
      bytesOf(
        file({ dependency: ["acme/b.proto"] }),
        file({ name: "acme/b.proto", package: "b", dependency: ["acme/a.proto"] }),
      ),
      /imports in a circle/,
    ],
    "a file that imports itself": [bytesOf(file({ dependency: ["acme/a.proto"] })), /imports in a circle/],
    "a well-known package": [
      bytesOf(beside, file({ name: "x.proto", package: "google.protobuf", messageType: [{ name: "Timestamp" }] })),
      /nobody else may declare anything in the package google.protobuf/,
    ],
    "a package below it": [
      bytesOf(beside, file({ name: "x.proto", package: "buf.validate.priv", messageType: [{ name: "X" }] })),
      /nobody else may declare anything in the package buf.validate/,
    ],
    "a path": [bytesOf(file({ name: "../../etc/passwd" })), /is no name of a file/],
    "a package that is none": [
      bytesOf(file({ package: "a b", messageType: [{ name: "A" }] })),
      /declares no|is no package/,
    ],
    "a name that is none": [
      bytesOf(file({ enumType: [{ name: "E;drop", value: [{ name: "X", number: 0 }] }] })),
      /is no name/,
    ],
    "a field of that name": [withField(field("__proto__.x", 2)), /is no name/],
    "a number twice": [withField(field("other", 1)), /"acme.A.other" has the number of another field/],
    "a name twice": [withField(field("id", 2)), /"acme.A.id" has the name of another field/],
    "a name in JSON twice": [
      withField(field("other", 2, { jsonName: "id" })),
      /has the name of another field, in JSON/,
    ],
    "a number that is reserved": [withField(field("other", 19_500)), /19500 is no number for a field/],
    "the number zero": [withField(field("other", 0)), /0 is no number/],
    "a type that is not there": [
      withField(field("other", 2, { type: Type.MESSAGE, typeName: ".acme.B" })),
      /"acme.A.other" is of type ".acme.B", which is not there/,
    ],
    "an enum as a message": [
      bytesOf(
        file({
          enumType: [{ name: "E", value: [{ name: "X", number: 0 }] }],
          messageType: [{ name: "A", field: [field("e", 1, { type: Type.MESSAGE, typeName: ".acme.E" })] }],
        }),
      ),
      /or of another kind/,
    ],
    "a type of the future": [withField(field("other", 2, { type: 99 })), /"acme.A.other" has no type/],
    "a oneof that is not there": [withField(field("other", 2, { oneofIndex: 3 })), /of a oneof that is not there/],
    "an enum without values": [bytesOf(file({ enumType: [{ name: "E" }] })), /"acme.E" has no values/],
    "an entry of a map with three fields": [
      bytesOf(
        file({
          messageType: [
            {
              name: "A",
              field: [field("m", 1, { label: Label.REPEATED, type: Type.MESSAGE, typeName: ".acme.A.MEntry" })],
              nestedType: [
                {
                  name: "MEntry",
                  field: [field("key", 1), field("value", 2), field("more", 3)],
                  options: { mapEntry: true },
                },
              ],
            },
          ],
        }),
      ),
      /"acme.A.MEntry" is no entry of a map/,
    ],
    "a syntax of the future": [bytesOf(file({ syntax: "proto9" })), /cannot be built/],
  };
  for (const [what, [bytes, expected]] of Object.entries(cases)) {
    test(what, () => expect(refused(bytes)).toMatch(expected));
  }
});

describe("what is too large is refused before it is built", () => {
  const many = <T>(count: number, make: (index: number) => T) =>
    Array.from({ length: count }, (_, index) => make(index));
  test("messages of two bytes each", () => {
    const writer = new BinaryWriter().tag(1, WireType.LengthDelimited).fork();
    for (let n = 0; n < 130_000; n++) writer.tag(4, WireType.LengthDelimited).uint32(0);
    expect(refused(writer.join().finish())).toMatch(/is \d+ bytes|more than 60000 parts/);
    const fewer = new BinaryWriter().tag(1, WireType.LengthDelimited).fork();
    for (let n = 0; n < 70_000; n++) fewer.tag(4, WireType.LengthDelimited).uint32(0);
    expect(refused(fewer.join().finish())).toMatch(/more than 60000 parts/);
  });
  test("messages inside each other", () => {
    let inner: Uint8Array = new Uint8Array();
    for (let n = 0; n < 5_000; n++) inner = new BinaryWriter().tag(3, WireType.LengthDelimited).bytes(inner).finish();
    const set = new BinaryWriter()
      .tag(1, WireType.LengthDelimited)
      .fork()
      .tag(4, WireType.LengthDelimited)
      .bytes(inner);
    expect(refused(set.join().finish())).toMatch(/nested more than/);
  });
  test("files, messages, fields, values", () => {
    expect(refused(bytesOf(...many(201, (n) => file({ name: `f${n}.proto` }))))).toMatch(/has 201 files; 200/);
    expect(refused(bytesOf(file({ messageType: [{ name: "A" }, ...many(1000, (n) => ({ name: `M${n}` }))] })))).toMatch(
      /more than 1000 messages/,
    );
    const fields = many(5001, (n) => field(`f${n}`, n + 1));
    expect(refused(bytesOf(file({ messageType: [{ name: "A", field: fields }] })))).toMatch(/more than 5000 fields/);
    const value = many(5001, (n) => ({ name: `V${n}`, number: n }));
    expect(refused(bytesOf(file({ enumType: [{ name: "E", value }] })))).toMatch(/more than 5000 values/);
  });
});

test("imports that meet again and again are built in no time", () => {
  const files = Array.from({ length: 100 }, (_, n) => ({
    name: `acme/f${n}.proto`,
    package: `acme.f${n}`,
    syntax: "proto3",
    messageType: [{ name: "M" }],
    dependency: [n - 1, n - 2].filter((each) => each >= 0).map((each) => `acme/f${each}.proto`),
  }));
  const top = file({ dependency: ["acme/f99.proto", "acme/f98.proto"] });
  expect(take(bytesOf(...files.toReversed(), top)).registry.getMessage("acme.f0.M")).toBeDefined();
});

describe("rules that cost too much are refused", () => {
  const rule = (expression: string) =>
    `repeated string names = 1; option (buf.validate.message).cel = {id: "x", message: "m", expression: ${JSON.stringify(expression)}};`;
  const cases: Record<string, [string, RegExp]> = {
    "loops inside loops": [rule("this.names.all(a, this.names.all(b, a != b || a == b))"), /a macro inside another/],
    "a pattern made of what is checked": [rule("this.names.all(a, a.matches(a))"), /needs a pattern that stands/],
    "a pattern with a million states": [
      rule("this.names.all(a, a.matches('((a{99}){99}){99}'))"),
      /a pattern is too large/,
    ],
    "the same without CEL": [
      'string name = 1 [(buf.validate.field).string.pattern = "((a{99}){99}){99}"];',
      /too large/,
    ],
    "no expression": [rule("this.names.all("), /is no expression of CEL/],
    "a very long one": [rule(`this.names.size() > 0 ${"|| true ".repeat(300)}`), /longer than 2000/],
    "many brackets": [rule(`${"(".repeat(40)}true${")".repeat(40)}`), /brackets inside each other/],
  };
  for (const [what, [body, expected]] of Object.entries(cases)) {
    test(what, () => expect(refused(shipped(body), "acme.Shipped")).toMatch(expected));
  }
});

describe("options that end before they should are refused, wherever rules stand", () => {
  /** buf.validate's number in the options of messages, oneofs and fields; the byte is a tag without its value. */
  const $unknown = [{ no: 1159, wireType: WireType.LengthDelimited, data: Uint8Array.of(1, 0x0a) }];
  const cut = <Desc extends DescMessage>(schema: Desc) => Object.assign(create(schema), { $unknown });
  const member = field("a", 1, { oneofIndex: 0 });
  const cases: Record<string, MessageInitShape<typeof DescriptorProtoSchema>> = {
    "of a message": { name: "A", field: [field("a", 1)], options: cut(MessageOptionsSchema) },
    "of a field": { name: "A", field: [field("a", 1, { options: cut(FieldOptionsSchema) })] },
    "of a oneof": { name: "A", field: [member], oneofDecl: [{ name: "either", options: cut(OneofOptionsSchema) }] },
  };
  for (const [what, message] of Object.entries(cases)) {
    test(what, () => expect(refused(bytesOf(file({ messageType: [message] })))).toMatch(/cannot be (read|used): prem/));
  }
});

test.each([
  ["without rules", bytesOf(file({ dependency: ["google/protobuf/timestamp.proto"] })), "acme.A", 2000],
  // A validator takes its time to read rules.
  ["with rules", shipped(RULED), "acme.Shipped", 150],
])("whatever a set %s is made of, it is taken or refused with a reason", (_, good, message, numRuns) => {
  fc.assert(
    fc.property(fc.array(fc.tuple(fc.nat(good.length - 1), fc.nat(255)), { maxLength: 8 }), (changes) => {
      const bytes = Uint8Array.from(good);
      for (const [at, to] of changes) bytes[at] = to;
      refused(bytes, message);
    }),
    { numRuns },
  );
});
