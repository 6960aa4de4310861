import { clone, create, equals, fromJson, type JsonValue, toJson } from "@bufbuild/protobuf";
import { isReflectList, isReflectMessage, type ReflectMessage, reflect } from "@bufbuild/protobuf/reflect";
import { type Preferences, PreferencesSchema } from "#gen/posthorn/v1/preferences_service_pb.ts";
import { isWhole, leaves } from "#src/rpc/field-mask.ts";

/** Preferences as they are stored: their JSON, how often it changed, and when last. */
export type Stored = { preferences: Preferences; revision: number; updatedAt: Date | undefined };

export function nothingStored(): Stored {
  return { preferences: create(PreferencesSchema), revision: 0, updatedAt: undefined };
}

export function toDocument(preferences: Preferences): JsonValue {
  return toJson(PreferencesSchema, preferences);
}

/** Fields of a newer server are passed over, so that it can be rolled back. */
export function fromDocument(document: JsonValue): Preferences {
  return fromJson(PreferencesSchema, document, { ignoreUnknownFields: true });
}

/** The time keeps etags apart when a deleted user's preferences begin again at revision 1. */
export function etagOf({ revision, updatedAt }: Stored): string {
  return revision === 0 ? "0" : `${revision}-${(updatedAt?.getTime() ?? 0).toString(36)}`;
}

/** Without the nested messages and map entries that set nothing. */
export function withoutEmpty(preferences: Preferences): Preferences {
  const result = clone(PreferencesSchema, preferences);
  prune(reflect(PreferencesSchema, result));
  return result;
}

/** Answers whether anything is left. */
function prune(message: ReflectMessage): boolean {
  for (const field of message.fields) {
    if (!message.isSet(field)) continue;
    if (field.fieldKind === "message" && !isWhole(field.message) && !prune(message.get(field))) message.clear(field);
    if (field.fieldKind !== "map" || field.mapKind !== "message") continue;
    const entries = message.get(field);
    for (const [key, entry] of [...entries]) if (!prune(entry as ReflectMessage)) entries.delete(key);
  }
  return message.fields.some((field) => message.isSet(field));
}

/** Paths of the innermost fields that differ; lists as a whole. */
export function changedPaths(before: Preferences, after: Preferences): string[] {
  const was = leaves(PreferencesSchema, before);
  const is = leaves(PreferencesSchema, after);
  const paths = new Set([...was.keys(), ...is.keys()]);
  return [...paths].filter((path) => !same(was.get(path)?.value, is.get(path)?.value)).sort();
}

function same(a: unknown, b: unknown): boolean {
  if (isReflectList(a) && isReflectList(b)) {
    const others = [...b];
    return a.size === b.size && [...a].every((item, index) => same(item, others[index]));
  }
  if (isReflectMessage(a) && isReflectMessage(b)) return equals(a.desc, a.message, b.message);
  return a === b;
}
