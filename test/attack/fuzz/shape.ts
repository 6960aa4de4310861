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
  | { readonly kind: "known"; readonly pool: Pool; readonly at: number }
  /** A google.protobuf.Timestamp this far from the moment it is sent. */
  | { readonly kind: "soon"; readonly ms: number }
  | { readonly kind: "struct"; readonly json: JsonValue }
  | { readonly kind: "shape"; readonly shape: Shape }
  /** JSON of any type in the place of the value; in binary, its bytes with the wire type of a string. */
  | { readonly kind: "raw"; readonly json: string };

export type Pool = "id" | "user" | "key" | "page_token" | "cursor" | "etag";

/** What a `known` value is at this moment. */
export type Resolve = (pool: Pool, at: number) => string;

export const TIMESTAMP = "google.protobuf.Timestamp";
export const DURATION = "google.protobuf.Duration";
export const FIELD_MASK = "google.protobuf.FieldMask";
export const STRUCT = "google.protobuf.Struct";
