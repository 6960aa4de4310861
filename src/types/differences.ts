import { type DescMessage, type JsonObject, type JsonValue, type MessageShape, toJson } from "@bufbuild/protobuf";

/** What posthorn.v1.FieldChange says, as it is stored. */
export type Difference = { path: string; before: string; after: string };

/** Characters of a value that are told: more would make a difference no easier to read. */
const VALUE_MAX = 1000;

/**
 * What differs between two messages of a kind, in the order of the fields, each with its path and both values as proto3
 * JSON; "" for a value that is not set. Messages are looked into, lists and maps change as a whole.
 */
export function differences<Desc extends DescMessage>(
  schema: Desc,
  before: MessageShape<Desc>,
  after: MessageShape<Desc>,
): Difference[] {
  const json = (message: MessageShape<Desc>) => toJson(schema, message, { useProtoFieldName: true });
  return between(schema, json(before), json(after), "");
}

function between(schema: DescMessage, before: JsonValue, after: JsonValue, prefix: string): Difference[] {
  const [left, right] = [before, after] as JsonObject[];
  return schema.fields.flatMap((field) => {
    const [was, is] = [left?.[field.name], right?.[field.name]];
    if (same(was, is)) return [];
    const path = `${prefix}${field.name}`;
    const isLookedInto = field.fieldKind === "message" && isObject(was) && isObject(is);
    return isLookedInto ? between(field.message, was, is, `${path}.`) : [{ path, before: text(was), after: text(is) }];
  });
}

function isObject(value: JsonValue | undefined): value is JsonObject {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** The JSON of a message always has its fields in the same order. */
function same(left: JsonValue | undefined, right: JsonValue | undefined): boolean {
  return text(left, Number.POSITIVE_INFINITY) === text(right, Number.POSITIVE_INFINITY);
}

function text(value: JsonValue | undefined, max = VALUE_MAX): string {
  if (value === undefined) return "";
  const whole = JSON.stringify(value);
  const characters = [...whole];
  return characters.length > max ? `${characters.slice(0, max - 1).join("")}…` : whole;
}
