import { clone, type DescField, type DescMessage, type Message, type MessageShape } from "@bufbuild/protobuf";
import { type ReflectMessage, reflect } from "@bufbuild/protobuf/reflect";
import type { FieldMask } from "@bufbuild/protobuf/wkt";
import { ErrorReason } from "#gen/posthorn/v1/error_pb.ts";
import { ReminderOffsetsSchema } from "#gen/posthorn/v1/notification_pb.ts";
import { Fault } from "#src/errors.ts";
import { MAX_PATHS } from "./oversize/bounds.ts";

/**
 * The paths an update is about (AIP-134, AIP-161): snake_case field names, into singular messages and into maps by
 * key (`types.job_match.enabled`; a key may stand in backquotes). `*` names every field. What another path covers is
 * left out.
 *
 * Without a mask: every field that is set in `message` – the top-level ones, or with `leaves` each innermost one, so
 * that setting a part of a nested message leaves the rest of it alone.
 *
 * @throws INVALID_FIELD_MASK naming the first path that does not exist, or when there are more than 1,000.
 */
export function maskPaths(
  mask: FieldMask | undefined,
  schema: DescMessage,
  message: Message,
  unmasked: "top-level" | "leaves" = "top-level",
): string[] {
  if (mask === undefined || mask.paths.length === 0) {
    if (unmasked === "leaves") return [...leaves(schema, message).keys()];
    const reflected = reflect(schema, message);
    return schema.fields.filter((field) => reflected.isSet(field)).map((field) => field.name);
  }
  if (mask.paths.length > MAX_PATHS) {
    const description = `must contain no more than ${MAX_PATHS} item(s)`;
    throw new Fault(ErrorReason.INVALID_FIELD_MASK, {
      message: `update_mask.paths: ${description}`,
      fields: [{ field: "update_mask.paths", description }],
    });
  }
  const named = new Set<string>();
  mask.paths.forEach((path, index) => {
    if (path === "*") for (const field of schema.fields) named.add(field.name);
    else named.add(checked(schema, path, index).join("."));
  });
  return [...named].filter((path) => !coveredByAnother(path, named));
}

/**
 * What `target` becomes when the fields at `paths` (from `maskPaths`) take the values of `source`. What is absent in
 * `source` is cleared. Neither argument is changed, and the result shares nothing with them.
 */
export function applyMask<Desc extends DescMessage>(
  schema: Desc,
  target: MessageShape<Desc>,
  source: MessageShape<Desc>,
  paths: readonly string[],
): MessageShape<Desc> {
  const result = clone(schema, target);
  const values = reflect(schema, clone(schema, source));
  for (const path of paths) copy(reflect(schema, result), values, path.split("."));
  return result;
}

/**
 * Every innermost set field with its value, by path: into singular messages and maps of messages, but not into lists,
 * maps of scalars, google.protobuf types or ReminderOffsets. An empty nested message is no leaf.
 */
export function leaves(schema: DescMessage, message: Message): Map<string, { field: DescField; value: unknown }> {
  const found = new Map<string, { field: DescField; value: unknown }>();
  const walk = (part: ReflectMessage, prefix: string) => {
    for (const field of part.desc.fields) {
      if (!part.isSet(field)) continue;
      const path = prefix + field.name;
      if (isNested(field)) walk(part.get(field), `${path}.`);
      else if (isMessageMap(field)) {
        for (const [key, value] of part.get(field)) walk(value as ReflectMessage, `${path}.${key}.`);
      } else found.set(path, { field, value: part.get(field) });
    }
  };
  walk(reflect(schema, message), "");
  return found;
}

function isNested(field: DescField): field is DescField & { fieldKind: "message" } {
  return field.fieldKind === "message" && !isWhole(field.message);
}

function isMessageMap(field: DescField): field is DescField & { fieldKind: "map"; mapKind: "message" } {
  return field.fieldKind === "map" && field.mapKind === "message" && !isWhole(field.message);
}

/** Whether a message is one value, set or not: empty it says something else than absent. */
export function isWhole(message: DescMessage): boolean {
  return message.typeName.startsWith("google.protobuf.") || message.typeName === ReminderOffsetsSchema.typeName;
}

/** The path's segments, without backquotes. Keys with a dot are refused: no key of the contract has one. */
function checked(schema: DescMessage, path: string, index: number): string[] {
  const segments: string[] = [];
  let at: DescMessage | "key" | undefined = schema;
  let map: DescMessage | undefined;
  for (const raw of path.split(".")) {
    if (at === "key") {
      const key = raw.replace(/^`(.*)`$/, "$1");
      if (!/^[A-Za-z0-9_-]{1,64}$/.test(key)) throw unknownPath(index, "names a malformed map key");
      segments.push(key);
      at = map;
      continue;
    }
    if (at === undefined) throw unknownPath(index, `goes into ${segments.join(".")}, which has no fields`);
    const field: DescField | undefined = at.fields.find((each) => each.name === raw);
    if (field === undefined) {
      const known = /^[A-Za-z0-9_]{1,64}$/.test(raw) ? `\`${raw}\`` : "that";
      throw unknownPath(index, `there is no field ${known} in ${at.typeName}`);
    }
    segments.push(raw);
    if (field.fieldKind === "map" && field.mapKey === STRING) {
      at = "key";
      map = isMessageMap(field) ? field.message : undefined;
    } else at = isNested(field) ? field.message : undefined;
  }
  return segments;
}

/** google.protobuf.FieldDescriptorProto.Type.TYPE_STRING */
const STRING = 9;

function unknownPath(index: number, description: string): Fault {
  const field = `update_mask.paths[${index}]`;
  return new Fault(ErrorReason.INVALID_FIELD_MASK, {
    message: `${field}: ${description}`,
    fields: [{ field, description }],
  });
}

function coveredByAnother(path: string, all: ReadonlySet<string>): boolean {
  for (let dot = path.indexOf("."); dot !== -1; dot = path.indexOf(".", dot + 1)) {
    if (all.has(path.slice(0, dot))) return true;
  }
  return false;
}

function copy(target: ReflectMessage, source: ReflectMessage | undefined, [name, ...rest]: readonly string[]): void {
  const field = target.desc.fields.find((each) => each.name === name);
  if (field === undefined) return;
  const present = source?.isSet(field) ?? false;
  const [key, ...inEntry] = rest;
  if (key === undefined) {
    if (source !== undefined && present) target.set(field, source.get(field));
    else target.clear(field);
  } else if (field.fieldKind === "map") {
    const entries = target.get(field);
    const value = source?.get(field).get(key);
    if (inEntry.length === 0 || !isMessageMap(field)) {
      if (value === undefined) entries.delete(key);
      else entries.set(key, value);
      return;
    }
    // Clearing a part of what is not there leaves it not there.
    if (!entries.has(key) && value === undefined) return;
    if (!entries.has(key)) entries.set(key, reflect(field.message));
    copy(entries.get(key) as ReflectMessage, value as ReflectMessage | undefined, inEntry);
  } else if (isNested(field)) {
    if (!target.isSet(field) && !present) return;
    const nested = target.get(field);
    copy(nested, present ? source?.get(field) : undefined, rest);
    target.set(field, nested);
  }
}
