import type { JsonObject, JsonValue } from "@bufbuild/protobuf";
import { invalidField } from "#src/errors.ts";

const MAX_BYTES = 16 * 1024;
const MAX_DEPTH = 16;

/**
 * Checks Content.data: finite numbers (JSON has no others, so an infinite one could be stored but never read back), at
 * most 16 levels and 16 KiB. Throws INVALID_REQUEST naming the field.
 */
export function checkData(data: JsonObject | undefined, field = "content.data"): void {
  if (data === undefined) return;
  checkShape(data, field);
  if (Buffer.byteLength(JSON.stringify(data)) > MAX_BYTES) throw invalidField(field, "must be at most 16 KiB as JSON");
}

/** The same but for the size: what is read as something else first is measured as that. */
export function checkShape(data: JsonObject, field = "content.data"): void {
  checkValue(data, 1, field);
}

function checkValue(value: JsonValue, depth: number, field: string): void {
  // A level is an object or a list, as wherever else JSON is stored (store/storable.ts).
  if (typeof value === "object" && value !== null && depth > MAX_DEPTH)
    throw invalidField(field, "must be at most 16 levels deep");
  if (typeof value === "number" && !Number.isFinite(value)) throw invalidField(field, "numbers must be finite");
  if (Array.isArray(value)) for (const item of value) checkValue(item, depth + 1, field);
  else if (typeof value === "object" && value !== null) {
    for (const item of Object.values(value)) checkValue(item, depth + 1, field);
  }
}
