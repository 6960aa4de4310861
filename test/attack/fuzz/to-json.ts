import { type DescField, ScalarType } from "@bufbuild/protobuf";
import { DURATION, type Entry, FIELD_MASK, type Resolve, type Shape, TIMESTAMP, type Value } from "./shape.ts";
import { isMany } from "./to-binary.ts";

/** The JSON of a request, as text and not through JSON.stringify: keys may come twice, and numbers be `1e400`. */
export function shapeToJson(shape: Shape, resolve: Resolve, now: number): string {
  const single: string[] = [];
  const many = new Map<DescField, Entry[]>();
  for (const entry of shape.entries) {
    const { field } = entry;
    if (isMany(field)) many.set(field, [...(many.get(field) ?? []), entry]);
    else single.push(`${JSON.stringify(field.jsonName)}:${valueToJson(entry.value, field, resolve, now)}`);
  }
  const lists = [...many].map(([field, entries]) => {
    const items = entries.map(({ key, value }) => {
      const json = valueToJson(value, field, resolve, now);
      return key === undefined ? json : `${JSON.stringify(key)}:${json}`;
    });
    const [open, close] = field.fieldKind === "map" ? ["{", "}"] : ["[", "]"];
    return `${JSON.stringify(field.jsonName)}:${open}${items.join(",")}${close}`;
  });
  return `{${[...single, ...lists].join(",")}}`;
}

function valueToJson(value: Value, field: DescField, resolve: Resolve, now: number): string {
  switch (value.kind) {
    case "text":
      return JSON.stringify(value.text);
    case "bytes": {
      const isBytes = "scalar" in field && field.scalar === ScalarType.BYTES;
      return JSON.stringify(Buffer.from(value.bytes).toString(isBytes ? "base64" : "latin1"));
    }
    case "integer":
      return isBool(field) ? String(value.integer !== 0n) : String(value.integer);
    case "number":
      return Number.isFinite(value.number) ? String(value.number) : "1e400";
    case "known":
      return JSON.stringify(resolve(value.pool, value.at, value.of));
    case "soon":
      return JSON.stringify(new Date(Math.floor((now + value.ms) / 1000) * 1000).toISOString());
    case "struct":
      return JSON.stringify(value.json, finite) ?? "null";
    case "shape":
      return wellKnown(value.shape) ?? shapeToJson(value.shape, resolve, now);
    case "raw":
      return value.json;
    default:
      return value satisfies never;
  }
}

function isBool(field: DescField): boolean {
  return "scalar" in field && field.scalar === ScalarType.BOOL;
}

/** The types of google.protobuf whose JSON is a string. */
function wellKnown({ desc, entries }: Shape): string | undefined {
  const texts = entries.map(({ value }) => (value.kind === "text" ? value.text : ""));
  if (desc.typeName === FIELD_MASK) return JSON.stringify(texts.map(camelCase).join(","));
  if (desc.typeName !== TIMESTAMP && desc.typeName !== DURATION) return undefined;
  const part = (name: string) => {
    const found = entries.find(({ field }) => field.name === name)?.value;
    return found?.kind === "integer" ? found.integer : 0n;
  };
  const [seconds, nanos] = [part("seconds"), part("nanos")];
  if (desc.typeName === DURATION) return JSON.stringify(`${seconds}.${String(nanos).padStart(9, "0")}s`);
  const inRange = seconds >= -62_135_596_800n && seconds <= 253_402_300_799n;
  const at = inRange ? new Date(Number(seconds) * 1000).toISOString().slice(0, 19) : `${seconds}-01-01T00:00:00`;
  return JSON.stringify(`${at}.${nanos}Z`);
}

function camelCase(path: string): string {
  return path.replaceAll(/_([a-z])/g, (_, letter: string) => letter.toUpperCase());
}

function finite(_: string, value: unknown): unknown {
  return typeof value === "number" && !Number.isFinite(value) ? "NaN" : value;
}
