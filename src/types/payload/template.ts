import type { DescField, DescMessage, Message } from "@bufbuild/protobuf";
import { ScalarType } from "@bufbuild/protobuf";
import { type ReflectMessage, reflect } from "@bufbuild/protobuf/reflect";
import { FeatureSet_FieldPresence as Presence } from "@bufbuild/protobuf/wkt";
import { named } from "./descriptor-fault.ts";

/** A text of a wording, read: what stands in it, and the paths of fields, in their order. */
export type Template = readonly (string | { readonly path: string })[];

/** A template that cannot be read or does not fit a message, in words for whoever wrote it. */
export class TemplateFault extends Error {}

const PART = /\{\{|\}\}|\{([A-Za-z_]\w*(?:\.[A-Za-z_]\w*){0,9})\}|[{}]|[^{}]+/g;

/** Throws TemplateFault where a brace stands for nothing. */
export function readTemplate(text: string): Template {
  return [...text.matchAll(PART)].map(([part, path]) => {
    if (path !== undefined) return { path };
    if (part === "{" || part === "}") {
      throw new TemplateFault(`has a "${part}" that begins or ends no field: write {field.path}, or ${part}${part}`);
    }
    return part === "{{" || part === "}}" ? part.charAt(0) : part;
  });
}

/** What a template makes of a message: at most a little more than `most` code units of it. */
export type Fill = (message: Message, most: number) => string;

/** Throws TemplateFault naming a field that the message has not, or not as a single value. */
export function fitTemplate(template: Template, desc: DescMessage): Fill {
  const parts = template.map((part) => {
    if (typeof part === "string") return () => part;
    const way = wayTo(desc, part.path);
    return (message: ReflectMessage) => textAt(message, way);
  });
  return (message, most) => {
    const reflected = reflect(desc, message);
    let text = "";
    for (const part of parts) {
      text += part(reflected);
      if (text.length > most) break;
    }
    return text;
  };
}

/** The fields on the way to one that is a single value. */
export function wayTo(root: DescMessage, path: string): readonly DescField[] {
  let desc: DescMessage | undefined = root;
  const way: DescField[] = [];
  for (const name of path.split(".")) {
    const field: DescField | undefined = desc?.fields.find((each) => each.name === name || each.jsonName === name);
    const last = way.at(-1);
    if (desc === undefined) throw new TemplateFault(`${shown(path)}: ${last?.name ?? ""} is no message`);
    if (field === undefined) throw new TemplateFault(`${shown(path)}: ${desc.typeName} has no field ${named(name)}`);
    if (field.fieldKind === "list" || field.fieldKind === "map") {
      throw new TemplateFault(`${shown(path)}: ${field.name} has several values`);
    }
    way.push(field);
    desc = field.fieldKind === "message" && !isWellKnown(field.message) ? field.message : undefined;
  }
  const last = way.at(-1);
  if (last?.fieldKind === "message" && !isWrapper(last.message)) {
    throw new TemplateFault(`${shown(path)}: a ${last.message.typeName} has no text of its own`);
  }
  return way;
}

/** Of which type the text is made. */
export function typeAt(way: readonly DescField[]): string {
  const last = way.at(-1);
  return last?.message?.typeName ?? last?.enum?.typeName ?? (ScalarType[last?.scalar ?? 0] ?? "").toLowerCase();
}

function shown(path: string): string {
  return named(`{${path}}`);
}

function isWellKnown({ typeName }: DescMessage): boolean {
  return typeName.startsWith("google.protobuf.");
}

/** https://protobuf.dev/reference/protobuf/google.protobuf/: messages of which JSON has the value only. */
function isWrapper(desc: DescMessage): boolean {
  return isWellKnown(desc) && desc.file.proto.name === "google/protobuf/wrappers.proto";
}

function textAt(root: ReflectMessage, way: readonly DescField[]): string {
  let message = root;
  for (const field of way) {
    const isAbsent = field.presence !== Presence.IMPLICIT && !message.isSet(field);
    if (field.fieldKind === "message") {
      if (isAbsent) return "";
      const inner = message.get(field) as ReflectMessage;
      const [value] = inner.desc.fields;
      if (field === way.at(-1) && value !== undefined) return textOf(value, inner.get(value));
      message = inner;
      continue;
    }
    if (!isAbsent) return textOf(field, message.get(field));
    const value = "getDefaultValue" in field ? field.getDefaultValue?.() : undefined;
    return value === undefined || field.proto.defaultValue === "" ? "" : textOf(field, value);
  }
  return "";
}

function textOf(field: DescField, value: unknown): string {
  if (value instanceof Uint8Array) return Buffer.from(value).toString("base64");
  if (field.enum !== undefined) return field.enum.value[value as number]?.name ?? String(value);
  if (field.scalar === ScalarType.FLOAT && typeof value === "number") return String(shortest(value));
  return String(value);
}

/** The shortest decimal that is the same 32-bit number; nine digits always are. */
function shortest(value: number): number {
  for (let digits = 6; digits < 9; digits++) {
    const short = Number(value.toPrecision(digits));
    if (Math.fround(short) === value) return short;
  }
  return Number.isFinite(value) ? Number(value.toPrecision(9)) : value;
}
