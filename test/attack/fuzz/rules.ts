import { type DescField, getOption } from "@bufbuild/protobuf";
import { type FieldRules, field as fieldRules, type StringRules } from "#gen/buf/validate/validate_pb.ts";

/** What the contract allows of a text; lengths in code points. */
export type TextRules = {
  pattern: string | undefined;
  min: number;
  max: number;
  form: "uuid" | "email" | "uri" | undefined;
};

/** What the contract allows of a field, as far as a generator can make use of it. */
export type Rules = {
  required: boolean;
  text: TextRules;
  bytes: { min: number; max: number };
  integers: { min: bigint; max: bigint };
  /** Seconds. */
  durations: { min: bigint; max: bigint };
  items: { min: number; max: number; unique: boolean };
  notZero: boolean;
};

export function rulesOf(field: DescField): Rules {
  const rules = getOption(field, fieldRules);
  const { type } = rules;
  const list = type.case === "repeated" ? type.value : undefined;
  // Rules of a list's items, or of a map's keys, stand where those of a single value would.
  const of = list?.items ?? (type.case === "map" ? type.value.keys : undefined) ?? rules;
  return {
    required: rules.required || (list?.minItems ?? 0n) > 0n || notEmpty(of),
    text: textRules(of.type.case === "string" ? of.type.value : undefined),
    bytes: {
      min: of.type.case === "bytes" ? Number(of.type.value.minLen) : 0,
      max: of.type.case === "bytes" && of.type.value.maxLen > 0n ? Number(of.type.value.maxLen) : 64,
    },
    integers: integerRules(of),
    durations: durationRules(of),
    items: { min: Number(list?.minItems ?? 0n), max: Number(list?.maxItems || 20n), unique: list?.unique ?? false },
    notZero: of.type.case === "enum" && of.type.value.notIn.includes(0),
  };
}

/** Whether the empty value breaks a rule: not if it is ignored. */
function notEmpty({ ignore, type }: FieldRules): boolean {
  if (ignore !== 0) return false;
  if (type.case === "enum") return type.value.notIn.includes(0);
  if (type.case !== "string") return type.case === "int64" && type.value.greaterThan.case === "gt";
  return type.value.minLen > 0n || type.value.pattern !== "" || type.value.wellKnown.case !== undefined;
}

function textRules(rules: StringRules | undefined): TextRules {
  const form = rules?.wellKnown.case;
  return {
    pattern: rules?.pattern || undefined,
    min: Number(rules?.minLen ?? 0n),
    max: Number(rules?.maxLen || 200n),
    form: form === "uuid" || form === "email" || form === "uri" ? form : undefined,
  };
}

function integerRules({ type }: FieldRules): { min: bigint; max: bigint } {
  if (type.case !== "int32" && type.case !== "int64") return { min: 0n, max: 100n };
  const { greaterThan, lessThan } = type.value;
  const low = greaterThan.case === undefined ? 0n : BigInt(greaterThan.value) + (greaterThan.case === "gt" ? 1n : 0n);
  const high = lessThan.case === undefined ? low + 100n : BigInt(lessThan.value) - (lessThan.case === "lt" ? 1n : 0n);
  return { min: low, max: high };
}

function durationRules({ type }: FieldRules): { min: bigint; max: bigint } {
  if (type.case !== "duration") return { min: 0n, max: 3600n };
  const { greaterThan, lessThan } = type.value;
  return {
    min: greaterThan.case === undefined ? 0n : greaterThan.value.seconds,
    max: lessThan.case === undefined ? 3600n : lessThan.value.seconds,
  };
}
