import { createRegistry, type DescMethod, type JsonValue, type Message, toJson } from "@bufbuild/protobuf";
import {
  BadRequestSchema,
  ErrorInfoSchema,
  QuotaFailureSchema,
  RetryInfoSchema,
} from "#gen/google/rpc/error_details_pb.ts";
import type { Answer } from "../rpc/callers.ts";

/** What came of a call, comparable between worlds: known ids by name, others by their order, no times, no secrets. */
export type Heard = { messages: JsonValue[]; problem: JsonValue };

const DETAILS = createRegistry(BadRequestSchema, ErrorInfoSchema, QuotaFailureSchema, RetryInfoSchema);

export function heard(method: DescMethod, { messages, problem }: Answer, known: ReadonlyMap<string, string>): Heard {
  const others = new Map<string, string>();
  const nameOf = (id: string) => {
    if (!others.has(id)) others.set(id, `<id ${others.size + 1}>`);
    return known.get(id) ?? others.get(id) ?? "";
  };
  const plainText = (text: string) => text.replace(UUID, nameOf).replace(TIME, "<time>");
  const plain = (value: JsonValue | undefined, name = ""): JsonValue => {
    if (value !== undefined && COUNTED.has(name)) return `<${name}>`;
    if (typeof value === "string") return value !== "" && OPAQUE.has(name) ? `<${name}>` : plainText(value);
    if (Array.isArray(value)) return value.map((each) => plain(each, name));
    if (typeof value !== "object" || value === null) return value ?? null;
    return Object.fromEntries(Object.entries(value).map(([key, each]) => [plainText(key), plain(each, key)]));
  };
  return {
    messages: messages.map((message) => plain(toJson(method.output, message))),
    problem: problem
      ? plain({
          code: problem.code,
          message: problem.message,
          details: problem.details.map(({ type, value }) => ({ type, value: detailJson(type, value) })),
        })
      : null,
  };
}

const UUID = /[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}/g;
const TIME = /\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z/g;

/** Fields whose values are random, or depend on when they were made. */
const OPAQUE = new Set(["nextPageToken", "cursor", "etag", "secret", "token", "latency", "prefix", "localTime"]);

/** Messages that count what waited at that moment, while others of the world's sends are still being decided. */
const COUNTED = new Set(["reconciled"]);

function detailJson(type: string, value: Message): JsonValue {
  const schema = DETAILS.getMessage(type);
  if (schema === undefined) throw new Error(`no detail is of type ${type}`);
  return toJson(schema, value);
}
