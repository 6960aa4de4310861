import type { Content } from "#gen/posthorn/v1/notification_pb.ts";
import { type Fault, invalidField, invalidRequest } from "#src/errors.ts";
import type { Contract } from "#src/types/payload/contract.ts";
import { type Payload, type Refused, readAny, readJson } from "#src/types/payload/read.ts";
import type { Wording, Words } from "#src/types/payload/wording.ts";
import { checkData, checkShape } from "./check-data.ts";

/** Of a type: what judges its payloads, and what words those that come without a title. */
export type PayloadRules = { key: string; contract?: Contract | undefined; words?: Wording | undefined };

export type TypedContent = {
  readonly content: Content;
  /** The same in a recipient's language, where the type words it in several; undefined: as in `content`. Throws nothing. */
  readonly contentIn?: ((language: string) => Content | undefined) | undefined;
};

/**
 * Content as it is stored, whose `typed` is the server's: of a type with a contract the payload in both forms, JSON too,
 * so that whoever shows, streams or filters it needs no descriptors. Where it has no title, the type's wording makes one of
 * the payload. Pure. Throws INVALID_REQUEST naming the fields.
 */
export function typedContent(content: Content, type: PayloadRules): TypedContent {
  const { contract, words: wording } = type;
  if (contract === undefined) {
    if (content.payload !== undefined) throw invalidField("content.payload", noContract(type.key));
    if (content.title === "") throw titleless(type.key);
    checkData(content.data);
    return { content: content.typed === undefined ? content : without(content) };
  }
  const { desc, version } = contract;
  const { payload, data } = content;
  if (payload !== undefined && data !== undefined) {
    throw invalidField("content.payload", "or data, not both: data is the same in JSON");
  }
  if (payload === undefined && data === undefined) {
    throw invalidField("content.payload", `or data is required: the type "${type.key}" takes a ${desc.typeName}`);
  }
  if (content.title === "" && wording === undefined) throw titleless(type.key);
  if (data !== undefined) checkShape(data);
  const field = payload === undefined ? "content.data" : "content.payload";
  const read = payload === undefined ? readJson(contract, data ?? {}) : readAny(contract, payload);
  if ("faults" in read) throw refusal(field, read);
  checkData(read.json, field);
  const stored = { ...without(content), data: read.json, typed: typed(desc.typeName, version, read) };
  if (content.title !== "" || wording === undefined) return { content: stored };
  const { wordsIn } = wording;
  const words = wording.words(read.message);
  if (words.title === "") {
    throw invalidField(
      "content.title",
      `is required: with this payload the wording of the type "${type.key}" is empty`,
    );
  }
  return {
    content: worded(stored, words),
    contentIn:
      wordsIn &&
      ((language) => {
        const said = wordsIn(read.message, language);
        // By then the Send is accepted, and its recipient one of many.
        return said === undefined || said.title === "" ? undefined : worded(stored, said);
      }),
  };
}

function worded(content: Content, { title, body }: Words): Content {
  return { ...content, title, body: content.body || body };
}

function titleless(type: string): Fault {
  return invalidField(
    "content.title",
    `is required: give one, or give the type "${type}" a payload contract (PushPayload) and a wording (UpdateType)`,
  );
}

function noContract(key: string): string {
  return `the type "${key}" has no payload contract: send data, or push one (PushPayload)`;
}

function without({ payload: _, typed: __, ...rest }: Content): Content {
  return rest;
}

function typed(message: string, version: number, { value }: Payload): NonNullable<Content["typed"]> {
  return { $typeName: "posthorn.v1.TypedPayload", message, version, value };
}

function refusal(at: string, { faults }: Refused): Fault {
  return invalidRequest(
    faults.map(({ field, description }) => ({ field: field === "" ? at : `${at}.${field}`, description })),
  );
}
