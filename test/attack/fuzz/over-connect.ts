import { create, fromBinary, fromJson, type JsonValue, type Message } from "@bufbuild/protobuf";
import { AnySchema } from "@bufbuild/protobuf/wkt";
import { codeFromString } from "@connectrpc/connect/protocol-connect";
import { type Status, StatusSchema } from "#gen/google/rpc/status_pb.ts";
import { type Answer, broken, type Outgoing } from "./answer.ts";
import { framed } from "./over-grpc.ts";
import { readFrames } from "./read-frames.ts";

type Form = "proto" | "json";
type WireError = { code?: string; message?: string; details?: { type?: string; value?: string }[] };

/** The Connect protocol by hand, over fetch: unary calls by POST or GET, and streams. */
export async function overConnect(baseUrl: string, form: Form, asGet: boolean, outgoing: Outgoing): Promise<Answer> {
  const { method, headers, patienceMs } = outgoing;
  const url = new URL(`/${method.parent.typeName}/${method.name}`, baseUrl);
  const unary = method.methodKind === "unary";
  const closing = new AbortController();
  const patience = setTimeout(() => closing.abort("hung"), patienceMs);
  const whole = Buffer.concat(unary ? outgoing.bodies : outgoing.bodies.map(framed));
  // Longer addresses are refused by any HTTP server.
  const get = asGet && whole.length < 4096;
  if (get) {
    url.search = new URLSearchParams({
      connect: "v1",
      encoding: form,
      base64: "1",
      message: whole.toString("base64url"),
    }).toString();
  }
  try {
    const response = await fetch(url, {
      method: get ? "GET" : "POST",
      headers: { ...(get ? {} : { "content-type": `application/${unary ? "" : "connect+"}${form}` }), ...headers },
      ...(get ? {} : { body: whole }),
      signal: closing.signal,
    });
    const words = JSON.stringify(Object.fromEntries(response.headers));
    if (!unary && response.status === 200) return await streamed(response, form, outgoing, words);
    const body = Buffer.from(await response.arrayBuffer());
    if (response.status !== 200) return refusal(JSON.parse(body.toString()) as WireError, words);
    return { outcome: 0, messages: [messageOf(body, form, outgoing)], status: undefined, words };
  } catch (error) {
    if (closing.signal.reason === "hung") return { ...broken("no answer"), outcome: "hung" };
    return broken(`${String(error)} ${String((error as Error).cause ?? "")}`);
  } finally {
    clearTimeout(patience);
    closing.abort("done");
  }
}

async function streamed(response: Response, form: Form, outgoing: Outgoing, words: string): Promise<Answer> {
  const read = await readFrames(response, outgoing.method, 2);
  const messages = read.messages.map((bytes) => messageOf(bytes, form, outgoing));
  if (read.wasLeft) return { outcome: 0, messages, status: undefined, words };
  if (read.end === undefined) return broken("the stream ended without its end");
  const { error } = JSON.parse(read.end.toString()) as { error?: WireError };
  return { ...(error ? refusal(error, words) : { outcome: 0, status: undefined, words }), messages };
}

function messageOf(bytes: Buffer, form: Form, { method }: Outgoing): Message {
  if (form === "proto") return fromBinary(method.output, bytes);
  return fromJson(method.output, JSON.parse(bytes.toString()) as JsonValue, { ignoreUnknownFields: false });
}

function refusal(error: WireError, words: string): Answer {
  const code = codeFromString(error.code ?? "");
  if (code === undefined) return broken(`no code: ${JSON.stringify(error)}`);
  const details = (error.details ?? []).map(({ type, value }) =>
    create(AnySchema, { typeUrl: `type.googleapis.com/${type}`, value: Buffer.from(value ?? "", "base64") }),
  );
  const status: Status = create(StatusSchema, { code, message: error.message ?? "", details });
  return { outcome: code, messages: [], status, words };
}
