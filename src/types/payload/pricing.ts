import {
  type DescField,
  type DescMessage,
  type DescOneof,
  getOption,
  type Message,
  type Registry,
} from "@bufbuild/protobuf";
import {
  type FieldRules,
  field as fieldOption,
  message as messageOption,
  predefined,
  type Rule,
} from "@bufbuild/protovalidate/gen/buf/validate/validate_pb.js";
import { FREE, type Price, priceOfExpression, priceOfPattern } from "./rule-price.ts";

/** What it may take at most to ask the rules of a message, in nodes of expressions; `units` says how large the whole is. */
export type PriceOf = (message: Message, units: number) => number;

/** A unit is a value, or so many bytes of one. */
export const BYTES_PER_UNIT = 16;

/**
 * Reads the rules that messages of a type are validated by, and prices them. `alone`: they are not only standard ones, or
 * there is a google.protobuf.Any that they might look into. Throws DescriptorFault.
 */
export function pricing(desc: DescMessage, registry: Registry): { priceOf: PriceOf; alone: boolean } {
  const known = new Map<DescMessage, PriceOf>();
  const added = predefinedRules(registry);
  const own = sum(added);
  const messagePrice = (of: DescMessage): PriceOf => {
    const found = known.get(of);
    if (found !== undefined) return found;
    let parts: PriceOf[] = [];
    const price: PriceOf = (message, units) => parts.reduce((sum, part) => sum + part(message, units), 0);
    // Before its fields: a message may contain itself.
    known.set(of, price);
    const { cel, celExpression } = getOption(of, messageOption);
    const whole = sum([...expressions(cel, celExpression, of.typeName), { linear: of.oneofs.length, square: 0 }]);
    parts = [(_, units) => atSize(whole, units), ...of.fields.map((field) => fieldPrice(field))];
    return price;
  };
  const fieldPrice = (field: DescField): PriceOf => {
    const rules = getOption(field, fieldOption);
    const at = `${field.parent.typeName}.${field.name}`;
    const whole = sum([priceOfRules(rules, at), own]);
    const { type } = rules;
    const each =
      type.case === "repeated" && type.value.items !== undefined
        ? priceOfRules(type.value.items, at)
        : type.case === "map"
          ? sum(
              [type.value.keys, type.value.values].map((inner) =>
                inner === undefined ? FREE : priceOfRules(inner, at),
              ),
            )
          : FREE;
    const inner = field.message === undefined ? undefined : messagePrice(field.message);
    return (message, units) => {
      const value = fieldValue(message, field);
      if (value === undefined) return whole.linear;
      if (field.fieldKind === "list" || field.fieldKind === "map") {
        const items = (Array.isArray(value) ? value : Object.values(value as object)) as unknown[];
        let price = atSize(whole, units);
        for (const item of items) {
          price += atSize(each, sizeOf(item));
          if (inner !== undefined) price += inner(item as Message, units);
        }
        return price;
      }
      if (inner !== undefined) return atSize(whole, units) + inner(value as Message, units);
      return atSize(whole, sizeOf(value));
    };
  };
  const priceOf = messagePrice(desc);
  return { priceOf, alone: added.length > 0 || [...known.keys()].some(isAny) };
}

function isAny({ typeName }: DescMessage): boolean {
  return typeName === "google.protobuf.Any";
}

function fieldValue(message: Message, { oneof, localName }: DescField & { oneof: DescOneof | undefined }): unknown {
  if (oneof === undefined) return Reflect.get(message, localName);
  const chosen = Reflect.get(message, oneof.localName) as { case?: string; value?: unknown } | undefined;
  return chosen?.case === localName ? chosen.value : undefined;
}

function sizeOf(value: unknown): number {
  if (typeof value === "string") return 1 + value.length / BYTES_PER_UNIT;
  return value instanceof Uint8Array ? 1 + value.byteLength / BYTES_PER_UNIT : 1;
}

function atSize({ linear, square }: Price, units: number): number {
  return linear * units + square * units * units;
}

function priceOfRules({ cel, celExpression, type }: FieldRules, at: string): Price {
  const { case: kind, value } = type;
  const pattern =
    (kind === "string" || kind === "bytes") && value.pattern !== "" ? priceOfPattern(value.pattern, at) : 0;
  const standard = kind === undefined ? 0 : 1;
  return sum([...expressions(cel, celExpression, at), { linear: pattern + standard, square: 0 }]);
}

function expressions(rules: readonly Rule[], bare: readonly string[], at: string): Price[] {
  return [...rules.map(({ expression }) => expression), ...bare].map((each) => priceOfExpression(each, at));
}

/** Rules that a set adds to the standard ones. Any field may use them, so they are priced at every one. */
function predefinedRules(registry: Registry): Price[] {
  return [...registry].flatMap((type) => {
    if (type.kind !== "extension" || !type.extendee.typeName.startsWith("buf.validate.")) return [];
    return expressions(getOption(type, predefined).cel, [], type.typeName);
  });
}

function sum(prices: readonly Price[]): Price {
  return prices.reduce((a, b) => ({ linear: a.linear + b.linear, square: a.square + b.square }), FREE);
}
