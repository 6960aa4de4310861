import { create, type DescField, type DescMessage, type Message, ScalarType } from "@bufbuild/protobuf";
import { type ReflectMessage, reflect } from "@bufbuild/protobuf/reflect";

const UNKNOWN_ENUM = 99;
/** Against every pattern, and in need of care in a header. */
const WRONG = " né ☃ \u{1F4EF}% ";
const WELL_KNOWN: Readonly<Record<string, Record<string, unknown>>> = {
  "google.protobuf.FieldMask": { paths: ["nope"] },
  "google.protobuf.Duration": { seconds: -1n },
};
const DEEPEST = 4;

/** A request in which every field is filled and as wrong as it can be and still be sent by every protocol. */
export function brokenRequest(desc: DescMessage): Message {
  return broken(desc, 0).message;
}

function broken(desc: DescMessage, depth: number): ReflectMessage {
  if (desc.typeName.startsWith("google.protobuf.")) return reflect(desc, create(desc, WELL_KNOWN[desc.typeName]));
  const message = reflect(desc, create(desc));
  for (const field of desc.fields) {
    const chosen = field.oneof !== undefined && message.oneofCase(field.oneof) !== undefined;
    if (!chosen && !(depth === DEEPEST && field.message !== undefined)) set(message, field, depth);
  }
  return message;
}

function set(message: ReflectMessage, field: DescField, depth: number): void {
  switch (field.fieldKind) {
    case "message":
      message.set(field, broken(field.message, depth + 1));
      return;
    case "enum":
      message.set(field, UNKNOWN_ENUM);
      return;
    case "scalar":
      message.set(field, wrong(field.scalar));
      return;
    case "list":
      // The same twice: lists that must not repeat refuse that as well.
      for (let i = 0; i < 2; i++) {
        if (field.listKind === "message") message.get(field).add(broken(field.message, depth + 1));
        else message.get(field).add(field.listKind === "enum" ? UNKNOWN_ENUM : wrong(field.scalar));
      }
      return;
    case "map":
      if (field.mapKind === "message") message.get(field).set(WRONG, broken(field.message, depth + 1));
      else message.get(field).set(WRONG, field.mapKind === "enum" ? UNKNOWN_ENUM : wrong(field.scalar));
      return;
  }
}

function wrong(type: ScalarType): unknown {
  switch (type) {
    case ScalarType.STRING:
      return WRONG;
    case ScalarType.BYTES:
      return new Uint8Array([0xff]);
    case ScalarType.BOOL:
      return true;
    case ScalarType.INT64:
      return -1n;
    case ScalarType.INT32:
      return -1;
    default:
      throw new Error(`say what a wrong value of scalar type ${ScalarType[type]} is`);
  }
}
