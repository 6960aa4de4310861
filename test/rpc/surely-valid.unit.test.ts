import { create, type DescField, type DescMessage, type Message, ScalarType } from "@bufbuild/protobuf";
import { reflect } from "@bufbuild/protobuf/reflect";
import { createValidator } from "@bufbuild/protovalidate";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { Channel, Priority } from "#gen/posthorn/v1/notification_pb.ts";
import { SendBatchRequestSchema, SendRequestSchema } from "#gen/posthorn/v1/send_service_pb.ts";
import { surelyValid } from "#src/rpc/surely-valid.ts";
import { METHODS } from "./fakes.ts";

/** Texts around what rules allow, and what they do not. */
const text = fc.oneof(
  fc.constantFrom("", "u1", "A", "a b", "é", "\u{1F600}", "x".repeat(64), "x".repeat(65), "x\n", "2026-01-02T10:00"),
  fc.constantFrom("/a", "https://a.b", "JavaScript:alert(1)", "vbscript:x", "data:,", "mailto:a@b", "a\u00a0b", "ſ:x"),
  fc.constantFrom("x".repeat(255), "x".repeat(256), "\u{1F600}".repeat(200), "0192e7a8-7c3d-7000-8000-000000000000"),
  fc.string({ unit: "binary", maxLength: 12 }),
);
const numbers = fc.oneof(fc.integer({ min: -2, max: 12 }), fc.constantFrom(100, 101, 5000, 2 ** 31 - 1));

/** A message of any type, filled at random. */
function message(desc: DescMessage, depth = 0): fc.Arbitrary<Message> {
  const fields = desc.fields.map((field) => fc.option(value(field, depth), { nil: undefined, freq: 2 }));
  return fc.tuple(...fields).map((values) => {
    const made = reflect(desc, create(desc));
    desc.fields.forEach((field, n) => {
      const of = values[n];
      if (of === undefined) return;
      if (field.fieldKind === "list") for (const item of of as unknown[]) made.get(field).add(wrapped(field, item));
      else made.set(field, wrapped(field, of));
    });
    return made.message;
  });
}

function wrapped(field: DescField, of: unknown): never {
  return (field.message === undefined ? of : reflect(field.message, of as Message)) as never;
}

function value(field: DescField, depth: number): fc.Arbitrary<unknown> {
  const one =
    field.message !== undefined
      ? depth < 3 && field.fieldKind !== "map"
        ? message(field.message, depth + 1)
        : fc.constant(create(field.message))
      : field.enum !== undefined
        ? fc.integer({ min: 0, max: 12 })
        : scalar(field.scalar);
  if (field.fieldKind === "map") return fc.constant(undefined);
  return field.fieldKind === "list" ? fc.array(one, { maxLength: depth === 0 ? 12 : 4 }) : one;
}

function scalar(type: ScalarType | undefined): fc.Arbitrary<unknown> {
  if (type === ScalarType.STRING) return text;
  if (type === ScalarType.BOOL) return fc.boolean();
  if (type === ScalarType.BYTES) return fc.uint8Array({ maxLength: 8 });
  if (type === ScalarType.DOUBLE || type === ScalarType.FLOAT) return fc.double();
  return type === ScalarType.INT32 || type === ScalarType.UINT32
    ? numbers.map(Math.abs)
    : numbers.map((n) => BigInt(Math.abs(n)));
}

const inputs = [...new Set(METHODS.map(({ input }) => input))].map((input) => [input.typeName, input] as const);

describe("what is recognised as valid is valid", () => {
  const validator = createValidator();
  test.each(inputs)("%s", (_, desc) => {
    const recognised = surelyValid(desc);
    fc.assert(
      fc.property(message(desc), (of) => {
        if (recognised(of)) expect(validator.validate(desc, of).kind).toBe("valid");
      }),
      { numRuns: 200 },
    );
  });
});

const usual = {
  to: { userIds: ["ada", "u:1"] },
  type: "order_shipped",
  content: {
    title: "Your order",
    body: "It is on its way.",
    url: "/orders/42",
    data: { order: { id: 42, items: ["a"] } },
    actions: [{ id: "track", label: "Track", url: "https://a.b/c" }],
  },
  channels: [Channel.IN_APP],
  priority: Priority.HIGH,
  tags: ["orders"],
  idempotencyKey: "order-42",
};

test("a usual Send is recognised, and so is a batch of them", () => {
  expect(surelyValid(SendRequestSchema)(create(SendRequestSchema, usual))).toBe(true);
  expect(surelyValid(SendBatchRequestSchema)(create(SendBatchRequestSchema, { items: [usual, usual] }))).toBe(true);
});

test.each([
  ["nobody to send to", { to: {} }],
  ["a recipient with a space", { to: { userIds: ["a b"] } }],
  ["a title of 256 characters", { content: { title: "t".repeat(256) } }],
  ["a script behind a click", { content: { title: "Hi", url: "JavaScript:alert(1)" } }],
  ["a priority that does not exist", { priority: 9 as Priority }],
  ["a channel twice", { channels: [Channel.IN_APP, Channel.IN_APP] }],
  ["the unspecified channel", { channels: [Channel.UNSPECIFIED] }],
  ["a tag too many", { tags: Array.from({ length: 11 }, (_, n) => `t${n}`) }],
])("%s is not", (_, change) => {
  expect(surelyValid(SendRequestSchema)(create(SendRequestSchema, { ...usual, ...change }))).toBe(false);
});
