import { type DescEnum, type DescField, type DescMessage, ScalarType } from "@bufbuild/protobuf";

/**
 * A typed sender in TypeScript for one type: its payload as a type (protobuf's JSON, so nothing else has to be generated),
 * and a function that sends it. `module`: where the contract's classes are imported from.
 */
export function typedSender(type: string, version: number, root: DescMessage, module: string): string {
  const names = new Map<DescMessage | DescEnum, string>();
  const waiting: DescMessage[] = [root];
  const declarations: string[] = [];
  const nameOf = (desc: DescMessage | DescEnum): string => {
    const known = names.get(desc);
    if (known !== undefined) return known;
    const local = desc.typeName.slice(desc.file.proto.package.length).replace(/^\./, "").replaceAll(".", "_");
    const taken = new Set([...names.values(), ...IMPORTED]);
    const name = taken.has(local) ? desc.typeName.replaceAll(".", "_") : local;
    names.set(desc, name);
    if (desc.kind === "message") waiting.push(desc);
    else declarations.push(enumType(desc, name));
    return name;
  };
  const rootName = nameOf(root);
  waiting.shift();
  for (let desc = waiting.shift(); desc !== undefined; desc = waiting.shift()) {
    declarations.push(messageType(desc, nameOf(desc), nameOf));
  }
  return `// Made by \`posthorn types codegen ${type}\` of version ${version} of its payload contract. Do not edit.
import type { JsonObject, MessageInitShape } from "@bufbuild/protobuf";
import type { CallOptions, Client } from "@connectrpc/connect";
import type { ContentSchema } from ${JSON.stringify(`${module}/notification_pb.ts`)};
import type { SendRequestSchema, SendResponse, SendService } from ${JSON.stringify(`${module}/send_service_pb.ts`)};

${declarations.join("\n\n")}

/** What is shown, without the payload; nothing where the type's wording makes it of the payload. */
export type Shown = Omit<MessageInitShape<typeof ContentSchema>, "data" | "payload" | "typed" | "$typeName">;

/** Whatever else a Send may say. */
export type More = Omit<MessageInitShape<typeof SendRequestSchema>, "to" | "type" | "content" | "$typeName">;

/** Sends a notification of the type ${JSON.stringify(type)}. */
export function send${rootName}(
  client: Client<typeof SendService>,
  to: NonNullable<MessageInitShape<typeof SendRequestSchema>["to"]>,
  payload: ${rootName},
  shown: Shown = {},
  more: More = {},
  options?: CallOptions,
): Promise<SendResponse> {
  const content = { ...shown, data: payload as unknown as JsonObject };
  return client.send({ ...more, to, type: ${JSON.stringify(type)}, content }, options);
}
`;
}

/** Names that the file has already. */
const IMPORTED = [
  ...["JsonObject", "MessageInitShape", "CallOptions", "Client", "ContentSchema", "SendRequestSchema", "SendResponse"],
  ...["SendService", "Shown", "More", "Omit", "NonNullable", "Promise", "Record", "Object", "Array"],
];

type NameOf = (desc: DescMessage | DescEnum) => string;

function messageType(desc: DescMessage, name: string, nameOf: NameOf): string {
  const fields = desc.fields.map((field) => `  ${key(field.jsonName)}?: ${fieldType(field, nameOf)};`);
  return [`/** ${desc.typeName}, in JSON. */`, `export type ${name} = {`, ...fields, "};"].join("\n");
}

function enumType(desc: DescEnum, name: string): string {
  const values = desc.values.map((value) => JSON.stringify(value.name)).join(" | ");
  return `/** ${desc.typeName}. */\nexport type ${name} = ${values};`;
}

function fieldType(field: DescField, nameOf: NameOf): string {
  const single =
    field.message !== undefined
      ? (WELL_KNOWN[field.message.typeName] ?? nameOf(field.message))
      : field.enum !== undefined
        ? field.enum.typeName === "google.protobuf.NullValue"
          ? "null"
          : nameOf(field.enum)
        : scalarType(field.scalar);
  if (field.fieldKind === "map") return `Record<string, ${single}>`;
  return field.fieldKind === "list" ? `(${single})[]` : single;
}

function scalarType(scalar: ScalarType | undefined): string {
  switch (scalar) {
    case ScalarType.BOOL:
      return "boolean";
    case ScalarType.STRING:
    case ScalarType.BYTES:
      return "string";
    case ScalarType.INT64:
    case ScalarType.UINT64:
    case ScalarType.SINT64:
    case ScalarType.FIXED64:
    case ScalarType.SFIXED64:
      return "string | number";
    default:
      return "number";
  }
}

/** https://protobuf.dev/programming-guides/json/ */
const WELL_KNOWN: Readonly<Record<string, string>> = {
  "google.protobuf.Any": '{ "@type": string; [field: string]: unknown }',
  "google.protobuf.Timestamp": "string",
  "google.protobuf.Duration": "string",
  "google.protobuf.FieldMask": "string",
  "google.protobuf.Struct": "Record<string, unknown>",
  "google.protobuf.Value": "unknown",
  "google.protobuf.ListValue": "unknown[]",
  "google.protobuf.Empty": "Record<string, never>",
  "google.protobuf.BoolValue": "boolean",
  "google.protobuf.StringValue": "string",
  "google.protobuf.BytesValue": "string",
  "google.protobuf.Int32Value": "number",
  "google.protobuf.UInt32Value": "number",
  "google.protobuf.Int64Value": "string | number",
  "google.protobuf.UInt64Value": "string | number",
  "google.protobuf.FloatValue": "number",
  "google.protobuf.DoubleValue": "number",
};

function key(name: string): string {
  return /^[A-Za-z_$][\w$]*$/.test(name) ? name : JSON.stringify(name);
}
