import {
  type DescField,
  type DescMessage,
  getOption,
  hasOption,
  isFieldSet,
  type Message,
  type MessageShape,
} from "@bufbuild/protobuf";
import {
  type EnumRules,
  EnumRulesSchema,
  type FieldRules,
  field as fieldOption,
  Ignore,
  message as messageOption,
  oneof as oneofOption,
  type RepeatedRules,
  RepeatedRulesSchema,
  type StringRules,
  StringRulesSchema,
} from "#gen/buf/validate/validate_pb.ts";

// Validation would be a tenth of the work of accepting a notification, and nearly every message is valid. So the rules of
// the contract are also compiled into plain functions that recognise a valid message. What they do not recognise, for a
// rule of a kind that is not known here or because it is not valid, protovalidate judges. They never say yes where it says
// no, which is tested; the rules stay where they are, in the contract.

/** True: valid for certain. False: not known. */
type Check = (value: unknown) => boolean;

const always: Check = () => true;
const never: Check = () => false;

/** A function that recognises valid messages of this type. */
export function surelyValid<D extends DescMessage>(desc: D): (message: MessageShape<D>) => boolean {
  return messageCheck(desc, new Map());
}

function messageCheck(desc: DescMessage, known: Map<DescMessage, Check>): Check {
  const found = known.get(desc);
  if (found !== undefined) return found;
  // A message that contains itself is left to the other.
  known.set(desc, never);
  const check = hasOption(desc, messageOption)
    ? never
    : all([
        ...desc.oneofs.filter((oneof) => hasOption(oneof, oneofOption)).map(() => never),
        ...desc.fields.map((field) => fieldCheck(field, known)),
      ]);
  known.set(desc, check);
  return check;
}

/** Checks one field of the message it is given. */
function fieldCheck(field: DescField, known: Map<DescMessage, Check>): Check {
  const rules = hasOption(field, fieldOption) ? getOption(field, fieldOption) : undefined;
  const check = all([ruleCheck(field, rules), nestedCheck(field, rules, known)]);
  const required = rules?.required === true;
  if (check === always && !required) return always;
  const name = field.localName;
  if (field.oneof !== undefined) {
    const oneof = field.oneof.localName;
    if (required) return never;
    return (message) => {
      const chosen = Reflect.get(message as Message, oneof) as { case?: string; value?: unknown };
      return chosen.case !== name || check(chosen.value);
    };
  }
  if (field.fieldKind === "message")
    return (message) => {
      const value: unknown = Reflect.get(message as Message, name);
      return value === undefined ? !required : check(value);
    };
  if (required) return never;
  const passesZero = rules?.ignore === Ignore.IF_ZERO_VALUE;
  return (message) => {
    const value: unknown = Reflect.get(message as Message, name);
    return (passesZero && isZero(value)) || check(value);
  };
}

function nestedCheck(field: DescField, rules: FieldRules | undefined, known: Map<DescMessage, Check>): Check {
  if (rules?.ignore === Ignore.ALWAYS) return always;
  if (field.fieldKind === "message") return messageCheck(field.message, known);
  if (field.fieldKind === "map") return field.mapKind === "message" ? isEmptyMap(field.message, known) : always;
  if (field.fieldKind !== "list" || field.listKind !== "message") return always;
  if (rules?.type.case === "repeated" && rules.type.value.items?.ignore === Ignore.ALWAYS) return always;
  return each(messageCheck(field.message, known));
}

/** Values of maps are not looked into, but for those that have no rules, as in a Struct. */
function isEmptyMap(desc: DescMessage, known: Map<DescMessage, Check>): Check {
  if (messageCheck(desc, known) === always || desc.file.name.startsWith("google/protobuf/")) return always;
  return (value) => Object.keys(value as object).length === 0;
}

/** Checks a value by the rules that stand at its field. */
function ruleCheck(field: DescField, rules: FieldRules | undefined): Check {
  if (rules === undefined || rules.ignore === Ignore.ALWAYS) return always;
  if (rules.celExpression.length > 0) return never;
  return all([typeCheck(field, rules.type), ...rules.cel.map((rule) => celCheck(rule.expression, field))]);
}

function typeCheck(field: DescField, type: FieldRules["type"]): Check {
  switch (type.case) {
    case undefined:
      return always;
    case "string":
      return stringCheck(type.value);
    case "enum":
      return enumCheck(field, type.value);
    case "repeated":
      return listCheck(field, type.value);
    default:
      return never;
  }
}

function stringCheck(rules: StringRules): Check {
  const { minLen, maxLen, pattern } = StringRulesSchema.field;
  if (!hasOnly(rules, StringRulesSchema, [minLen, maxLen, pattern])) return never;
  const min = Number(rules.minLen);
  const max = isFieldSet(rules, maxLen) ? Number(rules.maxLen) : Number.POSITIVE_INFINITY;
  const expression = isFieldSet(rules, pattern) ? new RegExp(rules.pattern, "u") : undefined;
  return (value) => {
    const text = value as string;
    // The rules count code points, of which a text has at least half as many as its length says and at most as many.
    if (text.length > max || text.length < (min > 1 ? 2 * min : min)) return false;
    return expression === undefined || expression.test(text);
  };
}

function enumCheck(field: DescField, rules: EnumRules): Check {
  const { definedOnly, notIn } = EnumRulesSchema.field;
  if (!hasOnly(rules, EnumRulesSchema, [definedOnly, notIn]) || field.enum === undefined) return never;
  const good = new Set<unknown>(field.enum.values.map(({ number }) => number));
  for (const number of rules.notIn) good.delete(number);
  return (value) => good.has(value);
}

function listCheck(field: DescField, rules: RepeatedRules): Check {
  const { minItems, maxItems, unique, items } = RepeatedRulesSchema.field;
  if (!hasOnly(rules, RepeatedRulesSchema, [minItems, maxItems, unique, items])) return never;
  const min = Number(rules.minItems);
  const max = isFieldSet(rules, maxItems) ? Number(rules.maxItems) : Number.POSITIVE_INFINITY;
  return all([
    (value) => {
      const { length } = value as unknown[];
      return (
        length >= min && length <= max && (!rules.unique || length < 2 || new Set(value as unknown[]).size === length)
      );
    },
    each(ruleCheck(field, rules.items)),
  ]);
}

/** `this.a.size() > 0 || this.b`: one of several fields is there. */
const ONE_OF_SEVERAL = /^this\.\w+(\.size\(\) > 0)?( \|\| this\.\w+(\.size\(\) > 0)?)*$/;
/** `!this.lowerAscii().matches('…')` */
const NO_MATCH = /^!this\.lowerAscii\(\)\.matches\('([^'\\]+)'\)$/;

/** The two forms of expressions that a Send meets. */
function celCheck(expression: string, field: DescField): Check {
  if (ONE_OF_SEVERAL.test(expression) && field.fieldKind === "message") {
    const names = new Set(expression.split(" || ").map((term) => term.split(".")[1]));
    const fields = field.message.fields.filter(({ name }) => names.has(name));
    const isGood = ({ fieldKind, scalar }: DescField) =>
      fieldKind === "list" || (fieldKind === "scalar" && scalar === 8);
    if (fields.length !== names.size || !fields.every(isGood)) return never;
    return (value) =>
      fields.some(({ localName }) => {
        const of: unknown = Reflect.get(value as Message, localName);
        return Array.isArray(of) ? of.length > 0 : of === true;
      });
  }
  const [, pattern] = NO_MATCH.exec(expression) ?? [];
  if (pattern === undefined) return never;
  const refused = new RegExp(pattern, "iu");
  return (value) => !refused.test(value as string);
}

/** Whether nothing else is set in the rules. */
function hasOnly(rules: Message, schema: DescMessage, allowed: readonly DescField[]): boolean {
  return schema.fields.every((field) => allowed.includes(field) || !isFieldSet(rules, field));
}

function isZero(value: unknown): boolean {
  return value === "" || value === 0 || value === 0n || value === false || (Array.isArray(value) && value.length === 0);
}

function each(check: Check): Check {
  if (check === always) return always;
  return (value) => {
    for (const item of value as unknown[]) if (!check(item)) return false;
    return true;
  };
}

function all(checks: readonly Check[]): Check {
  const needed = checks.filter((check) => check !== always);
  if (needed.includes(never)) return never;
  if (needed.length <= 1) return needed[0] ?? always;
  return (value) => {
    for (const check of needed) if (!check(value)) return false;
    return true;
  };
}
