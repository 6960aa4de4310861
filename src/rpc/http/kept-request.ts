import type { DescMessage } from "@bufbuild/protobuf";
import { unreadableField } from "../unreadable-field.ts";
import type { HttpRequest } from "./dual.ts";

/** A longer request is not looked into again; keeping it would cost memory on every call for the sake of few. */
const MAX_BYTES = 64 * 1024;

/** The body of a request while the library reads it, kept so that a refusal can say which field cannot be read. */
export type KeptRequest = {
  keeping(body: AsyncIterable<Uint8Array>): AsyncIterable<Uint8Array>;
  /** Empty: the request as a whole, or it is not known. */
  unreadableField(schema: DescMessage): string;
};

export function keptRequest(request: HttpRequest): KeptRequest {
  const chunks: Uint8Array[] = [];
  let size = 0;
  return {
    async *keeping(body) {
      for await (const chunk of body) {
        size += chunk.byteLength;
        if (size <= MAX_BYTES) chunks.push(chunk);
        else chunks.length = 0;
        yield chunk;
      }
    },
    unreadableField(schema) {
      for (const { form, bytes } of messagesOf(request, Buffer.concat(chunks))) {
        const field = unreadableField(schema, bytes, form);
        if (field !== "") return field;
      }
      return "";
    },
  };
}

type Kept = { form: "binary" | "json"; bytes: Uint8Array };

function messagesOf(request: HttpRequest, body: Buffer): Kept[] {
  if (request.method === "GET") return inQuery(request.url ?? "");
  const contentType = request.headers["content-type"] ?? "";
  const form = contentType.includes("json") ? "json" : "binary";
  const enveloped = /^application\/(grpc|connect\+)/.test(contentType);
  return (enveloped ? envelopes(body) : [body]).map((bytes) => ({ form, bytes }));
}

/** Connect's GET: the message stands in the query. */
function inQuery(url: string): Kept[] {
  const query = new URLSearchParams(url.slice(url.indexOf("?") + 1));
  const message = query.get("message") ?? "";
  const bytes = Buffer.from(message, query.get("base64") === "1" ? "base64url" : "utf8");
  return [{ form: query.get("encoding") === "json" ? "json" : "binary", bytes }];
}

/** Messages of a stream, each behind a byte of flags and four of length. */
function envelopes(body: Buffer): Buffer[] {
  const found: Buffer[] = [];
  for (let at = 0; at + 5 <= body.length; ) {
    const end = at + 5 + body.readUInt32BE(at + 1);
    if (end <= body.length) found.push(body.subarray(at + 5, end));
    at = end;
  }
  return found;
}
