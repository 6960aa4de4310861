import { create, type DescMethod, fromBinary, type Message, toBinary } from "@bufbuild/protobuf";
import { invalidRequest } from "#src/errors.ts";
import { type Access, accessOf, nameOf } from "./access.ts";
import type { AccessRule } from "./access-rules.ts";
import { type Call, EitherWay, Encoded, framed, type Principal, type Service } from "./call.ts";
import { oversizeBytes } from "./oversize/oversize.ts";
import { malformed, refusedUndecoded } from "./to-fault.ts";
import { unreadableField } from "./unreadable-field.ts";
import type { Violations } from "./validate.ts";

/** A handler of any shape, behind the types of its method. */
type AnyHandler = (request: unknown, call: Call) => unknown;

/** One method with everything about it that does not depend on the call, made once at start. */
export type Procedure = {
  readonly method: DescMethod;
  readonly kind: "unary" | "server_streaming" | "bidi_streaming";
  /** As on the wire, without the first slash: `posthorn.v1.SendService/Send`. */
  readonly name: string;
  readonly handler: AnyHandler;
  readonly access: Access;
  /** The message in the bytes; INVALID_REQUEST when there is none. Unknown fields are dropped: they only cost memory. */
  decode(bytes: Uint8Array): Message;
  /** What a handler answered, as bytes. */
  encode(output: unknown): Uint8Array;
  /** The same in the frame of a stream (see `framed`); an Encoded is one already. */
  frame(output: unknown): Buffer;
  /** What a handler answered, as a message. */
  message(output: unknown): Message;
  /** Throws unless the caller may ask for this and the request is valid. */
  check(principal: Principal, request: Message): void;
};

/** Every method of the services by its path, `/posthorn.v1.SendService/Send`. `checkAccess` has passed. */
export function procedures(
  services: readonly Service[],
  rules: Readonly<Record<string, AccessRule>>,
  violations: Violations,
): Map<string, Procedure> {
  const all = services.flatMap(({ descriptor, handlers }) =>
    descriptor.methods.map((method) =>
      procedure(method, handlers[method.localName] as unknown as AnyHandler, rules[nameOf(method)] ?? {}, violations),
    ),
  );
  return new Map(all.map((each) => [`/${each.name}`, each]));
}

const readOptions = { readUnknownFields: false };

function procedure(method: DescMethod, handler: AnyHandler, rule: AccessRule, violations: Violations): Procedure {
  if (method.methodKind === "client_streaming") throw new Error(`${nameOf(method)}: client streaming is not served`);
  const { input, output } = method;
  const access = accessOf(method, rule);
  const message = (value: unknown) =>
    value instanceof Encoded
      ? decoded(value, method)
      : create(output, (value instanceof EitherWay ? value.message() : value) as Message);
  return {
    method,
    kind: method.methodKind,
    name: `${method.parent.typeName}/${method.name}`,
    handler,
    access,
    decode(bytes) {
      const tooLarge = oversizeBytes(input, bytes);
      if (tooLarge !== undefined) throw refusedUndecoded(tooLarge);
      try {
        return fromBinary(input, bytes, readOptions);
      } catch {
        throw malformed(unreadableField(input, bytes, "binary"));
      }
    },
    encode: (value) => (value instanceof EitherWay ? value.bytes() : toBinary(output, message(value))),
    frame: (value) =>
      value instanceof Encoded ? value.framed : framed(toBinary(output, create(output, value as Message))),
    message,
    check(principal, request) {
      access.check(principal, request);
      const fields = violations(input, request);
      if (fields.length > 0) throw invalidRequest(fields);
    },
  };
}

/** One event for many streams is decoded once, where a protocol cannot take the bytes. */
const decodedOnce = new WeakMap<Encoded, Message>();

function decoded(encoded: Encoded, method: DescMethod): Message {
  let message = decodedOnce.get(encoded);
  if (message === undefined) {
    message = fromBinary(method.output, encoded.bytes);
    decodedOnce.set(encoded, message);
  }
  return message;
}
