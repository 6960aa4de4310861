import { create, type DescMessage, type MessageInitShape, ScalarType, toBinary } from "@bufbuild/protobuf";
import { BinaryWriter, WireType } from "@bufbuild/protobuf/wire";
import { describe, expect, test } from "vitest";
import { MarkReadRequestSchema } from "#gen/posthorn/v1/inbox_service_pb.ts";
import { UpdatePreferencesRequestSchema } from "#gen/posthorn/v1/preferences_service_pb.ts";
import { SendBatchRequestSchema, SendRequestSchema } from "#gen/posthorn/v1/send_service_pb.ts";
import { oversize, oversizeBytes } from "#src/rpc/oversize/oversize.ts";
import { createViolations } from "#src/rpc/validate.ts";

const violations = createViolations();
const names = (count: number) => Array.from({ length: count }, (_, n) => `name-${n}`);
const types = (count: number) => Object.fromEntries(names(count).map((name) => [name, {}]));

type Case = [field: string, max: number, schema: DescMessage, filled: (count: number) => object];
const CASES: Case[] = [
  ["to.user_ids", 1000, SendRequestSchema, (count) => ({ to: { userIds: names(count) } })],
  ["content.url", 2000, SendRequestSchema, (count) => ({ content: { url: "u".repeat(count) } })],
  ["content.actions", 5, SendRequestSchema, (count) => ({ content: { actions: names(count).map((id) => ({ id })) } })],
  ["items", 5000, SendBatchRequestSchema, (count) => ({ items: names(count).map(() => ({})) })],
  ["notification_ids", 500, MarkReadRequestSchema, (count) => ({ notificationIds: names(count) })],
  ["preferences.types", 200, UpdatePreferencesRequestSchema, (count) => ({ preferences: { types: types(count) } })],
  ["update_mask.paths", 1000, UpdatePreferencesRequestSchema, (count) => ({ updateMask: { paths: names(count) } })],
];

describe.each(CASES)("%s", (field, max, schema, filled) => {
  const message = (count: number) => create(schema, filled(count) as MessageInitShape<typeof schema>);
  /** Padded, so that it is large enough to be looked through. */
  const bytes = (count: number) =>
    Buffer.concat([
      toBinary(schema, message(count)),
      new BinaryWriter().tag(999, 2).bytes(Buffer.alloc(20_000)).finish(),
    ]);

  test("is good as far as the contract says, and for a while judged like all else", () => {
    for (const count of [0, 1, max, max + 1]) {
      expect(oversize(schema, message(count))).toBeUndefined();
      expect(oversizeBytes(schema, bytes(count))).toBeUndefined();
    }
  });

  test("is refused for its size when it is far more, before it is decoded and after", () => {
    // A character may be as long as four bytes.
    const count = 9 * max + 1000;
    const found = oversizeBytes(schema, bytes(count));
    expect(found).toEqual({ field, description: expect.stringContaining(String(max)) });
    expect(oversize(schema, message(count))).toEqual(found);
    if (field !== "update_mask.paths") expect(violations(schema, message(count))).toEqual([found]);
  });
});

test("what is too large is said in the words for what is a little too large", () => {
  const said = (count: number) =>
    violations(
      SendRequestSchema,
      create(SendRequestSchema, { to: { userIds: names(count) }, content: { title: "t" } }),
    );
  expect(said(5000)).toEqual(said(1001));
});

test("a Struct is refused for more values than anything stores, however they are nested", () => {
  const of = (data: object) =>
    create(SendRequestSchema, { to: { userIds: ["a"] }, content: { title: "t", data: { data } as never } });
  const many = Array.from({ length: 200_000 }, (_, n) => n);
  for (const data of [many, { deep: [many] }, Object.fromEntries(many.map((n) => [`k${n}`, n]))]) {
    const fault = { field: "content.data", description: "must hold no more than 10000 values" };
    expect(violations(SendRequestSchema, of(data))).toEqual([fault]);
    expect(oversizeBytes(SendRequestSchema, toBinary(SendRequestSchema, of(data)))).toEqual(fault);
  }
  expect(violations(SendRequestSchema, of(many.slice(0, 5000)))).toEqual([]);
});

test("one absurd item of a batch is its own affair, until it would cost all the others their time", () => {
  const batch = (count: number) => create(SendBatchRequestSchema, { items: [{}, { to: { topics: names(count) } }] });
  expect(violations(SendBatchRequestSchema, batch(5000))).toEqual([]);
  expect(oversizeBytes(SendBatchRequestSchema, toBinary(SendBatchRequestSchema, batch(5000)))).toBeUndefined();
  expect(oversizeBytes(SendBatchRequestSchema, toBinary(SendBatchRequestSchema, batch(10_000)))).toEqual({
    field: "items[1].to.topics",
    description: "must contain no more than 20 item(s)",
  });
});

describe("all parts of a request together", () => {
  const times = (count: number, part: Uint8Array) => Buffer.alloc(count * part.length, part);
  const nested = (number: number, content: Uint8Array) =>
    new BinaryWriter().tag(number, WireType.LengthDelimited).bytes(content).finish();
  /** An action of a content without anything in it. */
  const empty = Uint8Array.of(0x22, 0);
  const TOO_MANY = expect.stringContaining("more values than can be read at once");

  test("may be as many as a full batch with data has", () => {
    const data = Object.fromEntries(names(20).map((name) => [name, 1]));
    const items = names(5000).map((id) => ({ to: { userIds: [id] }, content: { title: "t", data }, tags: ["a"] }));
    const batch = create(SendBatchRequestSchema, { items });
    expect(oversizeBytes(SendBatchRequestSchema, toBinary(SendBatchRequestSchema, batch))).toBeUndefined();
    expect(oversizeBytes(SendBatchRequestSchema, Buffer.from(JSON.stringify({ items })), "json")).toBeUndefined();
  });

  test("are counted through messages that are given again and merged, through items, and in packed lists", () => {
    const merged = times(18_000, nested(3, times(110, empty)));
    expect(oversizeBytes(SendRequestSchema, merged)).toEqual({
      field: expect.stringMatching(/^content\.actions\[\d+\]$/),
      description: TOO_MANY,
    });
    const items = times(400, nested(1, nested(3, times(5000, empty))));
    expect(oversizeBytes(SendBatchRequestSchema, items)).toEqual({
      field: expect.stringMatching(/^items\[\d+\]\.content\.actions\[\d+\]$/),
      description: TOO_MANY,
    });
    const channels = nested(4, times(2_000_000, Uint8Array.of(1)));
    expect(oversizeBytes(SendRequestSchema, channels)).toEqual({ field: "channels", description: TOO_MANY });
    const unknown = times(1_000_000, new BinaryWriter().tag(999, WireType.Varint).uint32(1).finish());
    expect(oversizeBytes(SendRequestSchema, unknown)).toBeUndefined();
  });

  test("may be exactly so many, wherever the last of them is", () => {
    const channels = (count: number) => nested(4, times(count, Uint8Array.of(1)));
    expect(oversizeBytes(SendRequestSchema, channels(599_999))).toBeUndefined();
    expect(oversizeBytes(SendRequestSchema, channels(600_000))?.field).toBe("channels");
    // The content, its data, and in that an entry with a key and a value: five.
    const entry = nested(1, Buffer.concat([nested(1, Buffer.of()), nested(2, Buffer.of())]));
    const content = nested(3, nested(3, entry));
    expect(oversizeBytes(SendRequestSchema, Buffer.concat([channels(599_994), content]))).toBeUndefined();
    expect(oversizeBytes(SendRequestSchema, Buffer.concat([channels(599_995), content]))).toEqual({
      field: "content.data",
      description: TOO_MANY,
    });
    const values = (count: number) => Buffer.from(JSON.stringify({ unknown: Array(count - 1).fill(0) }));
    expect(oversizeBytes(SendRequestSchema, values(150_000), "json")).toBeUndefined();
    expect(oversizeBytes(SendRequestSchema, values(150_001), "json")).toEqual({
      field: "unknown",
      description: TOO_MANY,
    });
  });

  test("tell less than a field that is too large, wherever that is", () => {
    const crowded = times(130, nested(1, nested(3, times(5000, empty))));
    const large = nested(1, nested(3, times(300_000, empty)));
    expect(oversizeBytes(SendBatchRequestSchema, Buffer.concat([crowded, large]))).toEqual({
      field: "items[130].content.actions",
      description: "must contain no more than 5 item(s)",
    });
    const json = { unknown: Array(200_000).fill(0), to: { userIds: names(5000) } };
    expect(oversizeBytes(SendRequestSchema, Buffer.from(JSON.stringify(json)), "json")?.field).toBe("to.user_ids");
  });

  test("are too many for what is malformed behind them, too", () => {
    const data = Buffer.concat([times(700_000, Uint8Array.of(0x0a, 0)), Uint8Array.of(0x07)]);
    expect(oversizeBytes(SendBatchRequestSchema, nested(1, nested(3, nested(3, data))))).toEqual({
      field: "items[0].content.data",
      description: TOO_MANY,
    });
  });

  test("are counted in JSON, and the paths of a mask, which is one string there", () => {
    const items = Array.from({ length: 40 }, () => ({
      content: { actions: Array.from({ length: 5000 }, () => ({})) },
    }));
    const inJson = (schema: DescMessage, json: object) =>
      oversizeBytes(schema, Buffer.from(JSON.stringify(json)), "json");
    expect(inJson(SendBatchRequestSchema, { items })).toEqual({ field: "items", description: TOO_MANY });
    const updateMask = names(5000).join(",");
    expect(inJson(UpdatePreferencesRequestSchema, { updateMask })?.field).toBe("update_mask.paths");
  });
});

describe("what the decoder would read otherwise than it was counted is refused", () => {
  const tag = (number: number, wireType: WireType) => new BinaryWriter().tag(number, wireType).finish();
  const sized = (number: number, content: Uint8Array) =>
    new BinaryWriter().tag(number, WireType.LengthDelimited).bytes(content).finish();
  /** Two bytes each, and each an action of a content. */
  const crowd = Buffer.alloc(2_000_000, Buffer.from([0x22, 0]));
  const wireTypes = [WireType.Varint, WireType.Bit64, WireType.LengthDelimited, WireType.Bit32];

  test.each(SendRequestSchema.fields.map((field) => [field.name, field] as const))(
    "%s of another kind",
    (name, field) => {
      const isMalformed = (wireType: WireType) => {
        const body = Buffer.concat([tag(field.number, wireType), Buffer.alloc(1), sized(4, crowd)]);
        const found = oversizeBytes(SendRequestSchema, body);
        return found?.description === "malformed" && (found.field === name || found.field === `${name}[0]`);
      };
      const isNumber = field.scalar === ScalarType.BOOL || field.fieldKind === "enum";
      const own = isNumber ? [WireType.Varint] : [WireType.LengthDelimited];
      // Numbers may come packed.
      if (name === "channels") own.unshift(WireType.Varint);
      expect(wireTypes.filter((wireType) => !isMalformed(wireType))).toEqual(own);
    },
  );

  const content = (...parts: Uint8Array[]) => sized(3, Buffer.concat(parts));
  const cases: [string, Uint8Array, string][] = [
    ["a byte after everything", Buffer.concat([content(crowd), Buffer.from([0])]), "content.actions"],
    ["a byte after little", Buffer.concat([sized(4, Buffer.alloc(20_000)), Buffer.from([0])]), ""],
    [
      "a text that ends beyond what it is in",
      Buffer.concat([content(Buffer.from([0x0a, 0x7f])), sized(4, crowd)]),
      "content.title",
    ],
    ["an unknown field that does", Buffer.concat([content(Buffer.from([0xf2, 7, 0x7f])), sized(4, crowd)]), "content"],
    [
      "a packed list that ends within a number",
      Buffer.concat([sized(4, Buffer.from([0x81])), sized(3, crowd)]),
      "channels",
    ],
  ];
  test.each(cases)("%s", (_, body, field) => {
    expect(oversizeBytes(SendRequestSchema, body)?.field).toBe(field);
  });

  test("a value of a map of another kind", () => {
    const entry = Buffer.concat([sized(1, Buffer.from("key")), tag(2, WireType.Varint), Buffer.from([7])]);
    const body = Buffer.concat([sized(2, sized(4, entry)), sized(2, sized(4, Buffer.concat([entry, crowd])))]);
    expect(oversizeBytes(UpdatePreferencesRequestSchema, body)).toEqual({
      field: "preferences.types",
      description: "malformed",
    });
  });
});
