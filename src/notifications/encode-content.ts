import type { DescField, JsonObject, JsonValue } from "@bufbuild/protobuf";
import { BinaryWriter, WireType } from "@bufbuild/protobuf/wire";
import {
  type Action,
  ActionSchema,
  type Content,
  ContentSchema,
  type TypedPayload,
  TypedPayloadSchema,
} from "#gen/posthorn/v1/notification_pb.ts";

const CONTENT = ContentSchema.field;
const ACTION = ActionSchema.field;
const TYPED = TypedPayloadSchema.field;

/** Kept, so that it has grown once and for all; empty before and after each use. */
const out = new BinaryWriter();

/**
 * Encodes a posthorn.v1.Content as the library does, byte for byte, without its unknown fields and without `payload`, which
 * is only for requests. By hand, because it is done
 * for every notification, and the library makes messages of `data` and grows a buffer anew each time.
 */
export function encodeContent(content: Content): Uint8Array {
  try {
    write(content);
    return out.finish();
  } catch (error) {
    // What was written of it must not begin the next one.
    out.finish();
    throw error;
  }
}

function write(content: Content): void {
  text(CONTENT.title, content.title);
  text(CONTENT.body, content.body);
  if (content.data !== undefined) {
    out.uint32(lengthOf(CONTENT.data)).fork();
    object(content.data);
    out.join();
  }
  for (const button of content.actions) action(button);
  text(CONTENT.url, content.url);
  text(CONTENT.imageUrl, content.imageUrl);
  text(CONTENT.icon, content.icon);
  if (content.typed !== undefined) typed(content.typed);
}

function typed({ message, version, value }: TypedPayload): void {
  out.uint32(lengthOf(CONTENT.typed)).fork();
  text(TYPED.message, message);
  if (version !== 0) out.uint32((TYPED.version.number << 3) | WireType.Varint).int32(version);
  if (value.byteLength > 0) out.uint32(lengthOf(TYPED.value)).bytes(value);
  out.join();
}

function action({ id, label, url }: Action): void {
  out.uint32(lengthOf(CONTENT.actions)).fork();
  text(ACTION.id, id);
  text(ACTION.label, label);
  text(ACTION.url, url);
  out.join();
}

function text(field: DescField, value: string): void {
  if (value !== "") out.uint32(lengthOf(field)).string(value);
}

function lengthOf({ number }: DescField): number {
  return (number << 3) | WireType.LengthDelimited;
}

// google.protobuf.Struct, Value and ListValue (struct.proto), whose numbers are not going to change.
const [FIELDS, KEY, VALUE, STRING, STRUCT, LIST, VALUES] = [1, 1, 2, 3, 5, 6, 1].map(
  (number) => (number << 3) | WireType.LengthDelimited,
) as [number, number, number, number, number, number, number];
const NULL = (1 << 3) | WireType.Varint;
const NUMBER = (2 << 3) | WireType.Bit64;
const BOOL = (4 << 3) | WireType.Varint;

function object(of: JsonObject): void {
  for (const [key, inner] of Object.entries(of)) {
    out.uint32(FIELDS).fork().uint32(KEY).string(key).uint32(VALUE).fork();
    value(inner);
    out.join().join();
  }
}

function value(of: JsonValue): void {
  switch (typeof of) {
    case "string":
      out.uint32(STRING).string(of);
      return;
    case "number":
      out.uint32(NUMBER).double(of);
      return;
    case "boolean":
      out.uint32(BOOL).bool(of);
      return;
    case "object":
      if (of === null) out.uint32(NULL).uint32(0);
      else if (Array.isArray(of)) {
        out.uint32(LIST).fork();
        for (const item of of) {
          out.uint32(VALUES).fork();
          value(item);
          out.join();
        }
        out.join();
      } else {
        out.uint32(STRUCT).fork();
        object(of);
        out.join();
      }
      return;
    default:
      throw new TypeError(`${typeof (of satisfies never)} is no JSON`);
  }
}
