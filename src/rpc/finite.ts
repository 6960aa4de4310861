import type { DescField, DescMessage, Message } from "@bufbuild/protobuf";

/**
 * The path of the first number in a `google.protobuf.Struct` of the message that is infinite or NaN, if any. Such a
 * number is legal in binary and slips through JSON as `1e400`, but could never be answered as JSON again.
 *
 * Looks into singular messages only: items of lists (batches) are checked one by one by whoever takes them.
 */
export function notFinite(schema: DescMessage, message: Message): string | undefined {
  for (const { field, struct } of fieldsWithStructs(schema)) {
    const value: unknown = field.oneof ? oneofValue(message, field) : Reflect.get(message, field.localName);
    if (value === undefined || value === null) continue;
    if (struct) {
      if (!allFinite(value)) return field.name;
    } else if (field.message !== undefined) {
      const inner = notFinite(field.message, value as Message);
      if (inner !== undefined) return `${field.name}.${inner}`;
    }
  }
  return undefined;
}

function oneofValue(message: Message, field: DescField): unknown {
  const chosen = Reflect.get(message, field.oneof?.localName ?? "") as { case?: string; value?: unknown };
  return chosen.case === field.localName ? chosen.value : undefined;
}

type Reached = { field: DescField; struct: boolean };
const STRUCTS = new Set(["google.protobuf.Struct", "google.protobuf.Value", "google.protobuf.ListValue"]);
/** A pure function's memory: schemas are constants of the program. */
const known = new WeakMap<DescMessage, readonly Reached[]>();

function fieldsWithStructs(schema: DescMessage): readonly Reached[] {
  const found = known.get(schema);
  if (found !== undefined) return found;
  known.set(schema, []); // A message that contains itself ends here.
  const reached = schema.fields.flatMap((field): Reached[] => {
    if (field.fieldKind !== "message") return [];
    if (STRUCTS.has(field.message.typeName)) return [{ field, struct: true }];
    return fieldsWithStructs(field.message).length > 0 ? [{ field, struct: false }] : [];
  });
  known.set(schema, reached);
  return reached;
}

function allFinite(root: unknown): boolean {
  const waiting: unknown[] = [root];
  while (waiting.length > 0) {
    const value = waiting.pop();
    if (typeof value === "number" && !Number.isFinite(value)) return false;
    if (typeof value === "object" && value !== null) waiting.push(...Object.values(value));
  }
  return true;
}
