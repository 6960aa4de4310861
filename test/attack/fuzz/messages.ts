import type { DescField, DescMessage } from "@bufbuild/protobuf";
import fc from "fast-check";
import { FITS } from "./fitting.ts";
import { MASKS, SECONDS, TEXTS } from "./hostile.ts";
import { leavesOf, structs, wrong } from "./leaves.ts";
import { rulesOf } from "./rules.ts";
import { DURATION, type Entry, FIELD_MASK, type Shape, STRUCT, TIMESTAMP, type Value } from "./shape.ts";

/** How often a value is one that should be refused: never, now and then, as often as not. */
export type Temper = "valid" | "mixed" | "hostile";

const BAD: Record<Temper, number> = { valid: 0, mixed: 2, hostile: 20 };
const GOOD = 20;

/** Some callers may leave them out, and others not. */
const ASKED = new Set(["reason"]);

/** Any request of a message type. Made once for each type and temper: rules are read and patterns compiled for it. */
export function messages(desc: DescMessage, temper: Temper): fc.Arbitrary<Shape> {
  const key = `${desc.typeName} ${temper}`;
  const found = made.get(key);
  if (found !== undefined) return found;
  const arbitrary = build(desc, temper);
  made.set(key, arbitrary);
  return arbitrary;
}

/** A pure function's memory. */
const made = new Map<string, fc.Arbitrary<Shape>>();

function build(desc: DescMessage, temper: Temper): fc.Arbitrary<Shape> {
  const alone = desc.fields.filter((field) => field.oneof === undefined);
  const parts = [
    ...alone.map((field) => presence(field, temper, entries(field, desc, temper))),
    ...desc.oneofs.map((oneof) => {
      const each = oneof.fields.map((field) => entries(field, desc, temper));
      const one = fc.oneof(...each);
      // Several of a oneof: the last one counts in binary, and JSON is refused.
      const several = fc.tuple(...each).map((all) => all.flat());
      return fc.oneof(
        { weight: GOOD, arbitrary: one },
        { weight: GOOD / 2, arbitrary: fc.constant<Entry[]>([]) },
        { weight: BAD[temper], arbitrary: several },
      );
    }),
  ];
  const ofRules = fc.tuple(...parts).map((lists): Shape => ({ desc, entries: lists.flat() }));
  const fitted = FITS[desc.typeName];
  const inOrder =
    fitted === undefined || temper === "hostile"
      ? ofRules
      : fc.oneof(
          { weight: 1, arbitrary: ofRules },
          { weight: 2, arbitrary: fc.tuple(ofRules, fc.nat(1000)).map(([shape, n]) => fitted(shape, n)) },
        );
  if (BAD[temper] === 0) return inOrder;
  // Everything twice: later values win, messages merge.
  const twice = fc.tuple(inOrder, inOrder).map(([a, b]): Shape => ({ desc, entries: [...a.entries, ...b.entries] }));
  return fc.oneof({ weight: 30, arbitrary: inOrder }, { weight: 1, arbitrary: twice });
}

function presence(field: DescField, temper: Temper, filled: fc.Arbitrary<Entry[]>): fc.Arbitrary<Entry[]> {
  const absent = rulesOf(field).required || ASKED.has(field.name) ? BAD[temper] / 2 : 2 * GOOD;
  return fc.oneof({ weight: GOOD, arbitrary: filled }, { weight: absent, arbitrary: fc.constant<Entry[]>([]) });
}

function entries(field: DescField, parent: DescMessage, temper: Temper): fc.Arbitrary<Entry[]> {
  const value = either(valuesOf(field, parent, temper), temper);
  const { items } = rulesOf(field);
  switch (field.fieldKind) {
    case "list": {
      const few = fc.array(value, { minLength: Math.max(items.min, 1), maxLength: Math.max(items.min, 4) });
      const toMany = (values: Value[]) => values.map((each): Entry => ({ field, value: each }));
      if (BAD[temper] === 0) return few.map((values) => toMany(items.unique ? distinct(values) : values));
      const tooMany = value.map((each) => Array.from({ length: Math.min(items.max + 1, 5001) }, () => each));
      return fc
        .oneof(
          { weight: 30, arbitrary: few },
          { weight: 1, arbitrary: tooMany },
          { weight: 1, arbitrary: fc.constant<Value[]>([]) },
        )
        .map(toMany);
    }
    case "map": {
      const keys = fc.oneof(
        { weight: GOOD, arbitrary: fc.constantFrom("general", "news", "constructor", "a-b") },
        { weight: BAD[temper], arbitrary: fc.constantFrom(...TEXTS) },
      );
      return fc
        .array(fc.tuple(keys, value), { maxLength: 3 })
        .map((pairs) => pairs.map(([key, each]): Entry => ({ field, key, value: each })));
    }
    default:
      return value.map((each) => [{ field, value: each }]);
  }
}

type Kinds = { valid: fc.Arbitrary<Value>; hostile: fc.Arbitrary<Value> };

function either({ valid, hostile }: Kinds, temper: Temper): fc.Arbitrary<Value> {
  return fc.oneof({ weight: GOOD, arbitrary: valid }, { weight: BAD[temper], arbitrary: hostile });
}

function valuesOf(field: DescField, parent: DescMessage, temper: Temper): Kinds {
  const message = "message" in field ? field.message : undefined;
  if (message === undefined) return leavesOf(field);
  const toValue = (shape: Shape): Value => ({ kind: "shape", shape });
  const numbers = (parts: Record<string, bigint>): Value =>
    toValue({
      desc: message,
      entries: message.fields
        .filter(({ name }) => name in parts)
        .map((each) => ({ field: each, value: { kind: "integer", integer: parts[each.name] ?? 0n } })),
    });
  const anySeconds = fc
    .tuple(fc.constantFrom(...SECONDS), fc.constantFrom(0n, 1n, -1n, 999_999_999n, 1_000_000_000n, -(2n ** 31n)))
    .map(([seconds, nanos]) => numbers({ seconds, nanos }));
  switch (message.typeName) {
    case TIMESTAMP:
      return {
        valid: fc
          .oneof(fc.integer({ min: -100_000_000, max: 100_000_000 }), fc.constantFrom(-1000, 0, 200, 1500, 3_600_000))
          .map((ms): Value => ({ kind: "soon", ms })),
        hostile: fc.oneof({ weight: 4, arbitrary: anySeconds }, wrong),
      };
    case DURATION: {
      const { min, max } = rulesOf(field).durations;
      // A call that is asked to wait is not asked to wait long.
      const high = field.name === "wait_for_decision" ? min : max;
      const valid = fc.oneof(fc.constantFrom(min, high), fc.bigInt({ min, max: high }));
      return {
        valid: valid.map((seconds) => numbers({ seconds, nanos: 0n })),
        hostile: fc.oneof({ weight: 4, arbitrary: anySeconds }, wrong),
      };
    }
    case FIELD_MASK: {
      const paths = message.fields[0];
      if (paths === undefined) throw new Error("a field mask has paths");
      const mask = (list: readonly string[]) =>
        toValue({ desc: message, entries: list.map((text) => ({ field: paths, value: { kind: "text", text } })) });
      const good = pathsOf(parent);
      return {
        valid: fc.array(fc.constantFrom(...good), { minLength: 1, maxLength: 3 }).map(mask),
        hostile: fc.oneof(fc.array(fc.constantFrom(...MASKS, ...good), { maxLength: 4 }).map(mask), wrong),
      };
    }
    case STRUCT:
      return structs;
    default:
      return {
        valid: messages(message, temper).map(toValue),
        hostile: fc.oneof({ weight: 4, arbitrary: messages(message, "hostile").map(toValue) }, wrong),
      };
  }
}

/** What a mask beside these fields may name: fields of the resource, which is a message beside it, or of the request. */
function pathsOf(parent: DescMessage): string[] {
  const resource = parent.fields.find(({ name }) => ["user", "type", "preferences"].includes(name))?.message;
  return (resource ?? parent).fields.flatMap((field) => [
    field.name,
    ...(field.fieldKind === "message" ? field.message.fields.map(({ name }) => `${field.name}.${name}`) : []),
  ]);
}

function distinct(values: readonly Value[]): Value[] {
  const seen = new Set<string>();
  return values.filter((value) => {
    const key = JSON.stringify(value, (_, part) => (typeof part === "bigint" ? String(part) : part));
    return !seen.has(key) && seen.add(key);
  });
}
