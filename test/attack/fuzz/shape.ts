import type { DescField, DescMessage, JsonValue } from "@bufbuild/protobuf";

/**
 * A request as it is going to be on the wire, before anybody made sure that it is a message: fields may come twice,
 * several of a oneof, map keys again, text need not be UTF-8 and numbers need not fit.
 */
export type Shape = { readonly desc: DescMessage; readonly entries: readonly Entry[] };

export type Entry = { readonly field: DescField; readonly key?: string; readonly value: Value };

export type Value =
  | { readonly kind: "text"; readonly text: string }
  /** For text and bytes alike; as text it is no UTF-8. */
  | { readonly kind: "bytes"; readonly bytes: Uint8Array }
  | { readonly kind: "integer"; readonly integer: bigint }
  | { readonly kind: "number"; readonly number: number }
  /** Something an earlier answer named, or one of the names that everything is about. */
  | { readonly kind: "known"; readonly pool: Pool; readonly at: number; readonly of: string | undefined }
  /** A google.protobuf.Timestamp this far from the moment it is sent. */
  | { readonly kind: "soon"; readonly ms: number }
  | { readonly kind: "struct"; readonly json: JsonValue }
  | { readonly kind: "shape"; readonly shape: Shape }
  /** JSON of any type in the place of the value; in binary, its bytes with the wire type of a string. */
  | { readonly kind: "raw"; readonly json: string };

export type Pool = "id" | "user" | "key" | "page_token" | "cursor" | "etag";

/** What a `known` value is at this moment; `of`: the kind of thing that its field names, where that can be told. */
export type Resolve = (pool: Pool, at: number, of: string | undefined) => string;

/** As in `notification_id`; for an `id` or a `key` by the message it stands in: `schedule` in GetScheduleRequest. */
export function kindOf({ name, parent }: DescField): string | undefined {
  if (name === "cursor") return name;
  const [, named] = /^(notification|batch|fanout|subscription)_ids?$/.exec(name) ?? [];
  if (named !== undefined) return named;
  if (/^(type|topic)s?$/.test(name)) return name.replace(/s$/, "");
  if (!["id", "ids", "key"].includes(name)) return undefined;
  const about = parent.name.replace(/^[A-Z][a-z]+(?=[A-Z].*Request$)/, "").replace(/s?Request$/, "");
  return OTHERWISE[parent.name] ?? about.toLowerCase();
}

/** Messages whose names do not say what they are about, or of which only some will do. */
const OTHERWISE: Readonly<Record<string, string>> = {
  AddMembersRequest: "topic",
  RemoveMembersRequest: "topic",
  ListMembersRequest: "topic",
  UpdateNotificationRequest: "waiting",
  CancelNotificationRequest: "waiting",
  CancelNotificationsRequest: "waiting",
};

export const TIMESTAMP = "google.protobuf.Timestamp";
export const DURATION = "google.protobuf.Duration";
export const FIELD_MASK = "google.protobuf.FieldMask";
export const STRUCT = "google.protobuf.Struct";
