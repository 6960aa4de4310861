import type { DescField, DescMessage, Message } from "@bufbuild/protobuf";
import type { Duration, Timestamp } from "@bufbuild/protobuf/wkt";
import type { FieldFault } from "#src/errors.ts";
import { MAX_VALUES } from "./oversize/bounds.ts";

/**
 * The first value in the message that is legal in binary and has no JSON form, or is far too large, if any: an infinite or
 * NaN number in a `google.protobuf.Struct` (which slips through JSON as `1e400`), a Timestamp outside the years 1 to 9999,
 * a Duration beyond 10,000 years or with parts of different signs. It could be stored but never answered, or not even
 * stored.
 *
 * Looks into singular messages only: items of lists (batches) are checked one by one by whoever takes them.
 */
export function unrepresentable(schema: DescMessage, message: Message): FieldFault | undefined {
  for (const { field, check } of fieldsToCheck(schema)) {
    const value: unknown = field.oneof ? oneofValue(message, field) : Reflect.get(message, field.localName);
    if (value === undefined || value === null) continue;
    if (check !== undefined) {
      const description = check(value);
      if (description !== undefined) return { field: field.name, description };
    } else if (field.message !== undefined) {
      const inner = unrepresentable(field.message, value as Message);
      if (inner !== undefined) return { ...inner, field: `${field.name}.${inner.field}` };
    }
  }
  return undefined;
}

function oneofValue(message: Message, field: DescField): unknown {
  const chosen = Reflect.get(message, field.oneof?.localName ?? "") as { case?: string; value?: unknown };
  return chosen.case === field.localName ? chosen.value : undefined;
}

/** What is wrong with a value of a well-known type. */
type Check = (value: unknown) => string | undefined;
/** Without a check: one of its own fields has one. */
type Reached = { field: DescField; check: Check | undefined };

const CHECKS: ReadonlyMap<string, Check> = new Map([
  ["google.protobuf.Struct", checkValues],
  ["google.protobuf.Value", checkValues],
  ["google.protobuf.ListValue", checkValues],
  ["google.protobuf.Timestamp", checkTimestamp],
  ["google.protobuf.Duration", checkDuration],
]);

/** A pure function's memory: schemas are constants of the program. */
const known = new WeakMap<DescMessage, readonly Reached[]>();

function fieldsToCheck(schema: DescMessage): readonly Reached[] {
  const found = known.get(schema);
  if (found !== undefined) return found;
  known.set(schema, []); // A message that contains itself ends here.
  const reached = schema.fields.flatMap((field): Reached[] => {
    if (field.fieldKind !== "message") return [];
    const check = CHECKS.get(field.message.typeName);
    return check !== undefined || fieldsToCheck(field.message).length > 0 ? [{ field, check }] : [];
  });
  known.set(schema, reached);
  return reached;
}

const MAX_NANOS = 999_999_999;
// 0001-01-01T00:00:00Z and 9999-12-31T23:59:59Z.
const FIRST_SECOND = -62_135_596_800n;
const LAST_SECOND = 253_402_300_799n;
const MAX_DURATION = 315_576_000_000n;

function checkTimestamp(value: unknown): string | undefined {
  const { seconds, nanos } = value as Timestamp;
  const good = seconds >= FIRST_SECOND && seconds <= LAST_SECOND && nanos >= 0 && nanos <= MAX_NANOS;
  return good ? undefined : "must be a time between the years 1 and 9999";
}

function checkDuration(value: unknown): string | undefined {
  const { seconds, nanos } = value as Duration;
  const inRange = seconds >= -MAX_DURATION && seconds <= MAX_DURATION && Math.abs(nanos) <= MAX_NANOS;
  const oneSign = seconds === 0n || nanos === 0 || seconds > 0n === nanos > 0;
  return inRange && oneSign ? undefined : "must be a duration of at most 10,000 years whose parts have one sign";
}

function checkValues(root: unknown): string | undefined {
  const waiting: unknown[] = [root];
  for (let count = 0; waiting.length > 0; count++) {
    if (count > MAX_VALUES) return `must hold no more than ${MAX_VALUES} values`;
    const value = waiting.pop();
    if (typeof value === "number" && !Number.isFinite(value)) return "numbers must be finite";
    if (typeof value !== "object" || value === null) continue;
    for (const item of Object.values(value)) waiting.push(item);
  }
  return undefined;
}
