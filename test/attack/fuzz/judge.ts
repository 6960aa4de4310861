import {
  type DescField,
  type DescMessage,
  type DescMethod,
  type Message,
  ScalarType,
  toBinary,
  toJsonString,
} from "@bufbuild/protobuf";
import { reflect } from "@bufbuild/protobuf/reflect";
import { BinaryReader } from "@bufbuild/protobuf/wire";
import { anyUnpack } from "@bufbuild/protobuf/wkt";
import { BadRequestSchema, ErrorInfoSchema, RetryInfoSchema } from "#gen/google/rpc/error_details_pb.ts";
import { type ItemError, ItemErrorSchema } from "#gen/posthorn/v1/error_pb.ts";
import { Code } from "#src/errors.ts";
import type { Answer, Outgoing } from "./answer.ts";
import { tableNames } from "./table-names.ts";

/** What nobody outside should read: SQL, places in a file system, stack frames, what we are built of. */
const LEAKS: Readonly<Record<string, RegExp>> = {
  SQL: /\bselect\b.{1,200}\bfrom\b|\binsert into\b|\bon conflict\b|\brelation "|\bcolumn "|syntax error at|violates .* constraint|duplicate key value|invalid byte sequence|unsupported Unicode escape/is,
  path: /\/(work|home|usr|tmp|root|node_modules|src)\/|file:\/\/\/(?!etc\/passwd)|node:internal|\.[mc]?[jt]s:\d+/,
  "stack frame": /(^|\n|\\n)\s*at \S+ ?\(|\bat async\b/,
  library:
    /postgres|drizzle|jetstream|\bnats\b|redis|protobuf-es|@bufbuild|connectrpc\.com|connect-node|grpc-js|protovalidate|\bjose\b|undici|\bzlib\b|\bERR_[A-Z]|\bECONN|is not a function|Cannot (read|convert|mix)|undefined \(reading|Maximum call stack|Invalid time value|RangeError|TypeError|SyntaxError/i,
  table: await tableNames(),
};

/** Everything that is wrong with an answer; none: it is as promised. */
export function judge(answer: Answer, outgoing: Outgoing): string[] {
  const { method } = outgoing;
  if (answer.outcome === "hung") return ["no answer in time"];
  if (answer.outcome === "broken") return [`no answer at all: ${answer.words.slice(0, 300)}`];
  const wrong = answer.messages.flatMap((message) => ofMessage(method, message));
  if (answer.outcome !== 0) wrong.push(...ofRefusal(answer, answer.outcome, outgoing));
  return wrong;
}

function ofRefusal({ status, words }: Answer, code: number, outgoing: Outgoing): string[] {
  const wrong: string[] = [];
  if (status === undefined) return [`refused with ${code} without details: ${words}`];
  const details = status.details.map((any) => ({
    info: anyUnpack(any, ErrorInfoSchema),
    bad: anyUnpack(any, BadRequestSchema),
    retry: anyUnpack(any, RetryInfoSchema),
  }));
  const info = details.find((each) => each.info !== undefined)?.info;
  const fields = details.flatMap(({ bad }) => bad?.fieldViolations ?? []);
  const all = [
    status.message,
    words,
    ...Object.values(info?.metadata ?? {}),
    ...fields.flatMap((f) => [f.field, f.description]),
  ];
  const isNamed = (field: string) => isOfRequest(outgoing, field, status.message);
  wrong.push(...defects(code, status.message, fields, isNamed), ...leaksOf(all.join("\n")));
  if (status.code !== code) wrong.push(`the status says ${status.code} and the details ${code}`);
  if (!info?.reason) wrong.push("no reason");
  if (status.message === "") wrong.push("no message");
  return wrong;
}

type Violation = { field: string; description: string };

/** What holds for a refusal of a whole call and for that of an item in it. */
function defects(
  code: number,
  message: string,
  fields: readonly Violation[],
  isNamed: (field: string) => boolean,
): string[] {
  if (code === Code.INTERNAL || code === Code.UNKNOWN || code === Code.UNAVAILABLE) return [`code ${code}: ${message}`];
  if (code !== Code.INVALID_ARGUMENT) return [];
  const [first] = fields;
  if (first === undefined) return [`INVALID_ARGUMENT names no field: ${message}`];
  const wrong = fields
    .filter(({ field }) => !isNamed(field))
    .map(({ field, description }) => `INVALID_ARGUMENT names "${field}", which does not exist (${description})`);
  // A long path is cut in the message as in the detail.
  if (first.field !== "" && !message.replaceAll(" ", "_").includes(first.field.replaceAll(" ", "_").slice(0, 100)))
    wrong.push(`the message does not name ${first.field}: ${message}`);
  for (const { description } of fields) if (description === "") wrong.push("a violation says nothing");
  return wrong;
}

/** Requests that are no message at all have no field to name; and some things are said in a header. */
function isOfRequest(outgoing: Outgoing, path: string, message: string): boolean {
  if (path === "") return message.startsWith("The request cannot be read") && hasNoField(outgoing);
  if (["posthorn-tenant", "grpc-timeout", "connect-timeout-ms"].includes(path)) return true;
  if (message.startsWith("The request cannot be read") && /is unknown|no field/.test(message)) return true;
  return leadsTo(outgoing.method.input, path);
}

/** Whether there is a field at the end of the path. */
function leadsTo(desc: DescMessage, path: string): boolean {
  let at: DescMessage | undefined = desc;
  for (const [, name = "", index] of path.matchAll(/(\w+)((?:\[[^\]]*\])?)\.?/g)) {
    if (at === undefined) return false;
    const field: DescField | undefined = at.fields.find((each) => each.name === name);
    if (field === undefined) return at.oneofs.some((oneof) => oneof.name === name);
    if (index !== "" && field.fieldKind !== "list" && field.fieldKind !== "map") return false;
    at = "message" in field ? field.message : undefined;
  }
  return true;
}

/** Its encoding is none of ours, or one of its messages falls apart before there is a field. */
function hasNoField({ bodies, form, headers }: Outgoing): boolean {
  if (Object.keys(headers).some((name) => /^(?!.*accept).*encoding$/.test(name))) return true;
  return bodies.some((body) => (form === "json" ? !hasKeys(body) : endsWithinField(body)));
}

function hasKeys(body: Uint8Array): boolean {
  try {
    const json = JSON.parse(Buffer.from(body).toString());
    // One that does not look like a name is not said again.
    return typeof json === "object" && Object.keys(json).every((key) => /^\w{1,64}$/.test(key)) && !Array.isArray(json);
  } catch {
    return false;
  }
}

function endsWithinField(body: Uint8Array): boolean {
  const reader = new BinaryReader(body);
  try {
    while (reader.pos < reader.len) {
      const [number, wireType] = reader.tag();
      reader.skip(wireType, number);
    }
    return false;
  } catch {
    return true;
  }
}

export function leaksOf(text: string): string[] {
  return Object.entries(LEAKS).flatMap(([what, pattern]) => {
    const found = pattern.exec(text);
    return found === null
      ? []
      : [`${what} in an error: ${text.slice(Math.max(0, found.index - 60), found.index + 90)}`];
  });
}

/** An answer has a form in JSON as in binary, holds well-formed text, and the errors of its items are errors as any. */
function ofMessage({ input, output: desc }: DescMethod, message: Message): string[] {
  try {
    toBinary(desc, message);
    toJsonString(desc, message);
  } catch (error) {
    return [`an answer cannot be written again: ${String(error)}`];
  }
  // Paths of an item's error begin at the item.
  const isNamed = (field: string) => input.fields.some((each) => each.message && leadsTo(each.message, field));
  return itemErrors(desc, message).flatMap(({ code, reason, message: text, fieldViolations }) => [
    ...defects(code, text, fieldViolations, isNamed).map((wrong) => `an item: ${wrong}`),
    ...leaksOf([text, ...fieldViolations.map(({ field, description }) => `${field} ${description}`)].join("\n")),
    ...(reason === 0 ? ["an item's error has no reason"] : []),
  ]);
}

function itemErrors(desc: DescMessage, message: Message): ItemError[] {
  if (desc.typeName === ItemErrorSchema.typeName) return [message as ItemError];
  const reflected = reflect(desc, message);
  return desc.fields.flatMap((field) => {
    if (!("message" in field) || field.message === undefined || !reflected.isSet(field)) return [];
    if (field.fieldKind === "list")
      return [...reflected.get(field)].flatMap((each) =>
        itemErrors(field.message, (each as { message: Message }).message),
      );
    if (field.fieldKind !== "message" || field.message.typeName.startsWith("google.")) return [];
    return itemErrors(field.message, reflected.get(field).message);
  });
}

/** Every text in an answer by the name of its field: what later requests name. */
export function textsIn(desc: DescMessage, message: Message): [field: string, text: string][] {
  const reflected = reflect(desc, message);
  return desc.fields.flatMap((field): [string, string][] => {
    if (!reflected.isSet(field)) return [];
    if (field.fieldKind === "scalar" && field.scalar === ScalarType.STRING)
      return [[field.name, String(reflected.get(field))]];
    if (field.fieldKind === "message" && !field.message.typeName.startsWith("google."))
      return textsIn(field.message, reflected.get(field).message);
    if (field.fieldKind !== "list" || field.listKind !== "message") return [];
    return [...reflected.get(field)].flatMap((each) => textsIn(field.message, (each as { message: Message }).message));
  });
}
