import type { DescField, DescMessage, Message } from "@bufbuild/protobuf";
import type { FieldFault } from "#src/errors.ts";
import { oversizeBinary } from "./binary.ts";
import { fault, inside, isBounded, isLarge, type Plan, planOf, sizeOf, tolerated } from "./bounds.ts";
import { oversizeJson } from "./json.ts";

// A request of 4 MiB may hold two million items where the contract allows a thousand. To make objects of them, and to
// judge each by its rules, takes seconds in which the process does nothing else. So what is far too large is refused for
// its size alone, and where the request is a large one, before it is decoded. A large one that is malformed goes no further
// either: what it would make the decoder do cannot be told.

/** A smaller request cannot hold so much that decoding it takes long. */
const LARGE_BYTES = 16 * 1024;

/**
 * The first field of an encoded message that is far too large, of a large one; else the field at which the parts of all its
 * fields together become too many; else, in binary, the field that is malformed, empty for the message as a whole.
 */
export function oversizeBytes(
  schema: DescMessage,
  bytes: Uint8Array,
  form: "binary" | "json" = "binary",
): FieldFault | undefined {
  if (bytes.byteLength < LARGE_BYTES) return undefined;
  if (form === "binary") return oversizeBinary(planOf(schema), bytes);
  try {
    const text = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString();
    return oversizeJson(planOf(schema), JSON.parse(text));
  } catch {
    return undefined;
  }
}

/** The first field of a message that is far too large. */
export function oversize(schema: DescMessage, message: Message): FieldFault | undefined {
  return inMessage(planOf(schema), message);
}

function inMessage(plan: Plan, message: object): FieldFault | undefined {
  for (const { field, bound, inner, isJudgedByItem } of plan.bounded) {
    const held = heldIn(message, field);
    if (held === undefined) continue;
    if (bound !== undefined && sizeOf(field, held, tolerated(bound.max)) > tolerated(bound.max))
      return fault(field, bound);
    if (isJudgedByItem || !isBounded(inner)) continue;
    const values: unknown[] = field.fieldKind === "message" ? [held] : Object.values(held);
    for (let index = 0; index < values.length; index++) {
      const item = values[index];
      if (typeof item !== "object" || item === null) continue;
      const found = inMessage(inner, item);
      if (found !== undefined) return inside(field, index, found);
    }
  }
  return undefined;
}

function heldIn(message: object, field: DescField): string | object | undefined {
  const value: unknown = Reflect.get(message, field.oneof?.localName ?? field.localName);
  if (field.oneof === undefined || typeof value !== "object" || value === null)
    return isLarge(value) ? value : undefined;
  const chosen = value as { case?: string; value?: unknown };
  return chosen.case === field.localName && isLarge(chosen.value) ? chosen.value : undefined;
}
