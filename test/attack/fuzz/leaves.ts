import { type DescEnum, type DescField, type JsonValue, ScalarType } from "@bufbuild/protobuf";
import fc from "fast-check";
import { INTEGERS, NO_TEXT, TEXTS, WRONG_JSON } from "./hostile.ts";
import { type Rules, rulesOf, type TextRules } from "./rules.ts";
import { kindOf, type Pool, type Value } from "./shape.ts";

/** Single values of a field: those its rules allow, and those they, or somebody behind them, should refuse. */
export type Leaves = { readonly valid: fc.Arbitrary<Value>; readonly hostile: fc.Arbitrary<Value> };

export function leavesOf(field: DescField): Leaves {
  const rules = rulesOf(field);
  if ("enum" in field && field.enum !== undefined) return enums(field.enum, rules);
  if (!("scalar" in field) || field.scalar === undefined) throw new Error(`${field} is no scalar`);
  switch (field.scalar) {
    case ScalarType.STRING:
      return { valid: validText(field, rules.text), hostile: hostileText(rules.text) };
    case ScalarType.BYTES:
      return {
        valid: fc.uint8Array({ minLength: rules.bytes.min, maxLength: rules.bytes.max }).map(ofBytes),
        hostile: fc.oneof(fc.uint8Array({ maxLength: rules.bytes.max + 1 }).map(ofBytes), wrong),
      };
    case ScalarType.BOOL:
      return { valid: fc.constantFrom(ofInteger(1n), ofInteger(0n)), hostile: fc.oneof(integers, wrong) };
    case ScalarType.INT32:
    case ScalarType.INT64: {
      const { min, max } = rules.integers;
      const edges = [min - 1n, min, max, max + 1n];
      return {
        valid: fc.oneof(fc.constantFrom(min, max), fc.bigInt({ min, max })).map(ofInteger),
        hostile: fc.oneof(fc.constantFrom(...edges).map(ofInteger), integers, wrong),
      };
    }
    default:
      throw new Error(`say what a ${ScalarType[field.scalar]} of ${field} is filled with`);
  }
}

const ofText = (text: string): Value => ({ kind: "text", text });
const ofBytes = (bytes: Uint8Array): Value => ({ kind: "bytes", bytes });
const ofInteger = (integer: bigint): Value => ({ kind: "integer", integer });
const integers = fc.constantFrom(...INTEGERS).map(ofInteger);
/** A value of another type. */
export const wrong: fc.Arbitrary<Value> = fc.oneof(
  fc.constantFrom(...WRONG_JSON).map((json): Value => ({ kind: "raw", json })),
  fc.constantFrom<Value>({ kind: "number", number: Number.NaN }, { kind: "number", number: Number.POSITIVE_INFINITY }),
);

function known(pool: Pool, field: DescField): fc.Arbitrary<Value> {
  return fc.nat(1000).map((at): Value => ({ kind: "known", pool, at, of: kindOf(field) }));
}

function enums(of: DescEnum, rules: Rules): Leaves {
  const numbers = of.values.map(({ number }) => BigInt(number));
  return {
    valid: fc.constantFrom(...numbers.filter((number) => number !== 0n || !rules.notZero)).map(ofInteger),
    hostile: fc.oneof(integers, fc.constantFrom(...TEXTS, of.values[0]?.name ?? "").map(ofText), wrong),
  };
}

/** Patterns of the contract that many fields share, because they are names of the same things. */
const POOLS: Readonly<Record<string, Pool>> = {
  "^[\\x21-\\x7e]{1,128}$": "user",
  "^[A-Za-z][A-Za-z0-9_-]{0,63}$": "key",
};
const NAMED: Readonly<Record<string, Pool>> = { page_token: "page_token", cursor: "cursor", etag: "etag" };
/** Texts in a language of their own. */
const EXAMPLES: Readonly<Record<string, readonly string[]>> = {
  time_zone: ["UTC", "Europe/Berlin", "Asia/Kathmandu", "America/St_Johns", "Pacific/Apia", "Etc/GMT+12"],
  recurrence: ["FREQ=DAILY", "FREQ=WEEKLY;BYDAY=MO,TU", "FREQ=MONTHLY;BYMONTHDAY=-1", "FREQ=HOURLY;INTERVAL=2"],
  local_start_time: ["2026-01-01T09:00", "2026-03-29T02:30", "2024-02-29T23:59:59"],
  local_schedule_time: ["2026-03-29T02:30:00", "2099-01-01T12:00:00"],
  filter: ["data.salary >= 50000", 'priority > 1 && "a" in tags', 'type != "news"'],
};

function validText(field: DescField, rules: TextRules): fc.Arbitrary<Value> {
  const named = NAMED[field.name];
  if (named !== undefined)
    return fc.oneof({ weight: 3, arbitrary: fc.constant(ofText("")) }, { weight: 2, arbitrary: known(named, field) });
  if (rules.form === "uuid")
    return fc.oneof({ weight: 6, arbitrary: known("id", field) }, { weight: 1, arbitrary: fc.uuid().map(ofText) });
  if (rules.form === "email") return fc.emailAddress({ size: "-1" }).map(ofText);
  if (rules.form === "uri") return fc.webUrl({ size: "-1" }).map(ofText);
  const examples = EXAMPLES[field.name];
  if (examples !== undefined) {
    const fresh = rules.pattern === undefined ? anyText(rules) : matching(rules.pattern);
    return fc.oneof(
      { weight: 4, arbitrary: fc.constantFrom(...examples).map(ofText) },
      { weight: 1, arbitrary: fresh },
    );
  }
  if (rules.pattern !== undefined) {
    const pool = POOLS[rules.pattern];
    const fresh = matching(rules.pattern);
    return pool === undefined
      ? fresh
      : fc.oneof({ weight: 6, arbitrary: known(pool, field) }, { weight: 1, arbitrary: fresh });
  }
  return anyText(rules);
}

function anyText({ min: minLength, max: maxLength }: TextRules): fc.Arbitrary<Value> {
  const fits = TEXTS.filter(
    (text) => text.isWellFormed() && [...text].length >= minLength && [...text].length <= maxLength,
  );
  return fc.oneof(
    {
      weight: 4,
      arbitrary: fc.string({ unit: "grapheme", minLength, maxLength: Math.min(maxLength, 24) }).map(ofText),
    },
    { weight: 2, arbitrary: fc.constantFrom(...fits).map(ofText) },
    { weight: 1, arbitrary: fc.constantFrom("x".repeat(maxLength), "😀".repeat(maxLength)).map(ofText) },
  );
}

function matching(pattern: string): fc.Arbitrary<Value> {
  return fc.stringMatching(new RegExp(pattern), { size: "-1" }).map(ofText);
}

function hostileText({ max }: TextRules): fc.Arbitrary<Value> {
  return fc.oneof(
    { weight: 8, arbitrary: fc.constantFrom(...TEXTS).map(ofText) },
    { weight: 2, arbitrary: fc.constantFrom(...NO_TEXT).map(ofBytes) },
    { weight: 2, arbitrary: fc.constantFrom("x".repeat(max + 1), "\u{1f600}".repeat(max + 1)).map(ofText) },
    { weight: 1, arbitrary: fc.constantFrom("y".repeat(70_000), "'".repeat(300_000)).map(ofText) },
    { weight: 2, arbitrary: fc.string({ unit: "binary", maxLength: 40 }).map(ofText) },
    { weight: 2, arbitrary: wrong },
  );
}

const scalar = fc.oneof(
  fc.constantFrom<JsonValue>(null, true, false, 0, -0, 1.5, 1e300, 5e-324, 2 ** 53),
  fc.constantFrom(...TEXTS.filter((text) => text.isWellFormed() && !text.includes("\0"))),
);
const names = fc.constantFrom("a", "b", "__proto__", "constructor", "toJSON", "$typeName", "", "ключ", "a.b");

/** JSON objects: a few names deep, or one that nobody may store. */
export const structs: Leaves = {
  valid: fc
    .oneof(
      fc.dictionary(names, fc.oneof(scalar, fc.array(scalar, { maxLength: 3 }), fc.dictionary(names, scalar)), {
        maxKeys: 4,
      }),
    )
    .map((json): Value => ({ kind: "struct", json: json as JsonValue })),
  hostile: fc.oneof(
    fc.constantFrom<JsonValue>({ a: "\0" }, { "a\0": 1 }, { a: "x".repeat(20_000) }).map(ofStruct),
    fc.constantFrom(15, 16, 17, 40, 99, 200, 600).map((levels) => ofStruct({ a: nested(levels) })),
    fc.constantFrom(...NO_TEXT).map(ofBytes),
    wrong,
  ),
};

function ofStruct(json: JsonValue): Value {
  return { kind: "struct", json };
}

function nested(levels: number): JsonValue {
  let value: JsonValue = 1;
  for (let level = 0; level < levels; level++) value = level % 2 === 0 ? [value] : { a: value };
  return value;
}
