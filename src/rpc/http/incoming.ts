import type { DescMessage } from "@bufbuild/protobuf";
import { compressionGzip } from "@connectrpc/connect-node";
import { Fault } from "#src/errors.ts";
import { inTurn } from "#src/in-turn.ts";
import type { Exchange } from "../exchange.ts";
import { beforeDecoding } from "../large.ts";
import { oversizeBytes } from "../oversize/oversize.ts";
import { refusedUndecoded } from "../to-fault.ts";
import { unreadableField } from "../unreadable-field.ts";
import { connectErrorOf } from "./connect-errors.ts";
import type { HttpRequest } from "./dual.ts";
import { Gathered } from "./gathered.ts";
import { piecesOf } from "./http-exchange.ts";

/** The messages of a request as they come in. */
export type Incoming = {
  /** For the library: each piece is a whole message, unless the body is too large or ends within one. */
  readonly body: AsyncIterable<Uint8Array>;
  /** The field that cannot be read in the message that was given out last. Empty: the message as a whole, or none. */
  unreadableField(): Promise<string>;
  /** The message that was given out last could be read, and is not needed any more. */
  wasRead(): void;
};

export type IncomingLimits = {
  /** Of one message, compressed or not. */
  readonly maxReceiveBytes: number;
  /** For a request that is one message; where there are many, for each from its first byte to its last. */
  readonly requestTimeoutMs: number;
};

/** A flag and a length stand before each message of a stream. */
const HEAD_BYTES = 5;
const COMPRESSED = 1;
/** Each may hold a message as large as there may be, and once more decompressed. */
const LOOK_AT_ONCE = 4;

/**
 * Reads requests so that the library gets whole messages: it would keep every piece of one, however small, and its
 * refusals do not say which field it is. Time counts only while more of a message is waited for, so that a stream may be
 * quiet between messages and a handler may take its time.
 */
export function incomingOf(limits: IncomingLimits): (request: HttpRequest, exchange: Exchange) => Incoming {
  const aFew = inTurn(LOOK_AT_ONCE);
  return (request, exchange) => {
    let current: Buffer | undefined;

    /** Before the library makes objects of it. */
    async function refuseOversize(): Promise<void> {
      const message = inBody(request, current);
      // The library refuses it as a whole.
      if (message === undefined || message.bytes.byteLength > limits.maxReceiveBytes) return;
      const look = (bytes: Uint8Array | undefined) =>
        bytes && oversizeBytes(exchange.procedure.method.input, bytes, message.form);
      const isPlain = message.encoding === "identity";
      const tooLarge = isPlain ? look(message.bytes) : await aFew(async () => look(await plainOf(message, limits)));
      if (tooLarge === undefined) return;
      // The field is known: nobody is to look for it once more, which would make the objects after all.
      current = undefined;
      const fault = refusedUndecoded(tooLarge);
      exchange.abort(fault);
      throw fault;
    }

    async function* body(): AsyncGenerator<Uint8Array> {
      const pieces = piecesOf(request, exchange);
      const many = exchange.procedure.kind === "bidi_streaming";
      const lengthOfFirst = isEnveloped(request) ? envelopeIn : unlimitedIn;
      const gathered = new Gathered();
      let waitedMs = 0;
      try {
        for (;;) {
          const counts = !many || gathered.length > 0;
          const since = performance.now();
          const piece = await pieces.next(counts ? Math.max(0, limits.requestTimeoutMs - waitedMs) : undefined);
          if (counts) waitedMs += performance.now() - since;
          if (piece === undefined) break;
          gathered.add(piece);
          for (;;) {
            const length = lengthOfFirst(gathered, limits.maxReceiveBytes);
            if (length === undefined) break;
            current = gathered.take(length);
            if (many) waitedMs = 0;
            await refuseOversize();
            await beforeDecoding(current, exchange);
            yield current;
          }
        }
        if (gathered.length === 0) return;
        current = gathered.take(gathered.length);
        await refuseOversize();
        await beforeDecoding(current, exchange);
        yield current;
      } catch (error) {
        // What the library does not know it answers as INTERNAL.
        throw error instanceof Fault ? connectErrorOf(error) : error;
      } finally {
        pieces.leave();
      }
    }

    return {
      body: body(),
      unreadableField: () =>
        aFew(async () => {
          const message = request.method === "GET" ? inQuery(request.url ?? "") : inBody(request, current);
          return message === undefined ? "" : fieldIn(message, exchange.procedure.method.input, limits);
        }),
      wasRead() {
        current = undefined;
      },
    };
  };
}

/** Undefined: more of the message is to come. One that is too large is not waited for: the library refuses its head. */
function envelopeIn(gathered: Gathered, maxBytes: number): number | undefined {
  if (gathered.length < HEAD_BYTES) return undefined;
  const payload = gathered.bytes.readUInt32BE(1);
  if (payload > maxBytes) return gathered.length;
  return gathered.length < HEAD_BYTES + payload ? undefined : HEAD_BYTES + payload;
}

/** A message that ends where the body does. */
function unlimitedIn(gathered: Gathered, maxBytes: number): number | undefined {
  return gathered.length > maxBytes ? gathered.length : undefined;
}

type Found = { readonly form: "binary" | "json"; readonly bytes: Uint8Array; readonly encoding: string };

async function fieldIn(found: Found, schema: DescMessage, limits: IncomingLimits): Promise<string> {
  const bytes = await plainOf(found, limits);
  return bytes === undefined ? "" : unreadableField(schema, bytes, found.form);
}

/** Undefined: it cannot be decompressed. */
async function plainOf({ bytes, encoding }: Found, limits: IncomingLimits): Promise<Uint8Array | undefined> {
  if (encoding === "identity") return bytes;
  if (encoding !== compressionGzip.name) return undefined;
  return compressionGzip.decompress(bytes, limits.maxReceiveBytes).catch(() => undefined);
}

/** Connect's GET: the message stands in the query. */
function inQuery(url: string): Found {
  const query = new URLSearchParams(url.slice(url.indexOf("?") + 1));
  return {
    form: query.get("encoding") === "json" ? "json" : "binary",
    bytes: Buffer.from(query.get("message") ?? "", query.get("base64") === "1" ? "base64url" : "utf8"),
    encoding: query.get("compression") ?? "identity",
  };
}

function inBody(request: HttpRequest, given: Buffer | undefined): Found | undefined {
  if (given === undefined) return undefined;
  const form = contentTypeOf(request).includes("json") ? "json" : "binary";
  const encodingIn = (name: string) => String(request.headers[name] ?? "identity");
  if (!isEnveloped(request)) return { form, bytes: given, encoding: encodingIn("content-encoding") };
  if (given.length < HEAD_BYTES || given.length < HEAD_BYTES + given.readUInt32BE(1)) return undefined;
  const bytes = given.subarray(HEAD_BYTES);
  if (((given[0] ?? 0) & COMPRESSED) === 0) return { form, bytes, encoding: "identity" };
  const encoding = encodingIn(contentTypeOf(request).includes("grpc") ? "grpc-encoding" : "connect-content-encoding");
  return encoding === "identity" ? undefined : { form, bytes, encoding };
}

/** Messages of a stream stand one after the other in the body. */
function isEnveloped(request: HttpRequest): boolean {
  return /^application\/(grpc|connect)/.test(contentTypeOf(request));
}

function contentTypeOf(request: HttpRequest): string {
  return (request.headers["content-type"] ?? "").toLowerCase();
}
