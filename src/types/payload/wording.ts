import { type DescMessage, fromBinary, type Message } from "@bufbuild/protobuf";
import { type PayloadText, type PayloadWording, PayloadWordingSchema } from "#gen/posthorn/v1/type_service_pb.ts";
import type { FieldFault } from "#src/errors.ts";
import { inLanguage } from "../in-language.ts";
import type { Break } from "./breaks.ts";
import { type Fill, fitTemplate, readTemplate, TemplateFault, typeAt, wayTo } from "./template.ts";

/** What a notification reads as. */
export type Words = { readonly title: string; readonly body: string };

/** Makes words of the payloads of a contract. */
export type Wording = {
  words(payload: Message): Words;
  /** In a recipient's language; undefined: it reads as all others do. Undefined as a whole: it knows one language only. */
  wordsIn: ((payload: Message, language: string) => Words | undefined) | undefined;
};

// As the contract says.
const MAX_TITLE = 255;
const MAX_BODY = 8_000;
/** Code units after which nothing more is added: far more than is kept, and far less than a text of variables could make. */
const ENOUGH = 65_536;

/** Builds a wording that was checked when it was stored, with the contract that it was checked with. */
export function compileWording(stored: Uint8Array, desc: DescMessage): Wording {
  const { title, body, translations } = fromBinary(PayloadWordingSchema, stored);
  const fill = (text: string) => fitTemplate(readTemplate(text), desc);
  const wordsOf = (titleOf: Fill, bodyOf: Fill) => (payload: Message) => ({
    title: cut(oneLine(titleOf(payload, ENOUGH)), MAX_TITLE),
    body: cut(lines(bodyOf(payload, ENOUGH)), MAX_BODY),
  });
  const [titleOf, bodyOf] = [fill(title), fill(body)];
  const translated = Object.fromEntries(
    Object.entries(translations).map(([tag, said]) => [
      tag,
      wordsOf(said.title === "" ? titleOf : fill(said.title), said.body === "" ? bodyOf : fill(said.body)),
    ]),
  );
  return {
    words: wordsOf(titleOf, bodyOf),
    wordsIn:
      Object.keys(translated).length === 0
        ? undefined
        : (payload, language) => inLanguage(translated, language)?.(payload),
  };
}

/** What is wrong with a wording by itself or, with a `desc`, for payloads of that message. */
export function wordingFaults(stored: Uint8Array | null, desc: DescMessage | undefined): FieldFault[] {
  return textsOf(stored).flatMap(([field, text]) => {
    try {
      const template = readTemplate(text);
      if (desc !== undefined) fitTemplate(template, desc);
      return [];
    } catch (error) {
      if (error instanceof TemplateFault) return [{ field, description: error.message }];
      throw error;
    }
  });
}

/** What a new version of a contract would take from a wording, or make another of. `before`: undefined: it is the first. */
export function wordingBreaks(stored: Uint8Array | null, before: DescMessage | undefined, after: DescMessage): Break[] {
  const broken = (path: string, description: string) => ({ rule: "PAYLOAD_WORDING", path, description, file: "" });
  return [
    ...wordingFaults(stored, after).map(({ field, description }) => broken(field, description)),
    ...(before === undefined ? [] : changedTypes(stored, before, after)).map(([path, text]) => broken(path, text)),
  ];
}

function changedTypes(stored: Uint8Array | null, before: DescMessage, after: DescMessage): [string, string][] {
  return textsOf(stored).flatMap(([field, text]) => {
    const paths = readTemplate(text).flatMap((part) => (typeof part === "string" ? [] : [part.path]));
    return [...new Set(paths)].flatMap((path): [string, string][] => {
      const [was, is] = [typeIn(before, path), typeIn(after, path)];
      const differs = was !== undefined && is !== undefined && was !== is;
      return differs ? [[field, `"{${path}}": was of type ${was}, is ${is} now`]] : [];
    });
  });
}

function typeIn(desc: DescMessage, path: string): string | undefined {
  try {
    return typeAt(wayTo(desc, path));
  } catch {
    return undefined;
  }
}

/** All texts of a wording, by their paths in a type. */
export function textsOf(stored: Uint8Array | null): [string, string][] {
  if (stored === null) return [];
  const wording: PayloadWording = fromBinary(PayloadWordingSchema, stored);
  const said = Object.entries(wording.translations).map(([tag, text]): [string, PayloadText] => [
    `wording.translations["${tag}"]`,
    text,
  ]);
  return [["wording", wording] as const, ...said].flatMap(([path, { title, body }]): [string, string][] => [
    [`${path}.title`, title],
    [`${path}.body`, body],
  ]);
}

function oneLine(text: string): string {
  return text
    .toWellFormed()
    .replace(/[\p{Cc}\u2028\u2029]+/gu, " ")
    .trim();
}

function lines(text: string): string {
  return text
    .toWellFormed()
    .replace(/\r\n?|\u2028|\u2029/g, "\n")
    .replace(/[^\P{Cc}\n\t]/gu, "");
}

/** By characters, as lengths of the contract are counted. */
function cut(text: string, most: number): string {
  if (text.length <= most) return text;
  const characters = [...text];
  return characters.length <= most ? text : `${characters.slice(0, most - 1).join("")}…`;
}
