import type { DescMethod } from "@bufbuild/protobuf";
import fc from "fast-check";
import { METHODS } from "../../support/contract.ts";
import type { Transport } from "./answer.ts";
import { TEXTS } from "./hostile.ts";
import { messages, type Temper } from "./messages.ts";
import { mutations } from "./mutate.ts";
import type { Shape } from "./shape.ts";

/** Who makes a call; `other` is a key of another tenant, `bare` a key with one scope. */
export type Caller = "key" | "user" | "operator" | "operator-in-tenant" | "other" | "bare" | "none";

/** One call of a sequence. */
export type Step = {
  readonly method: DescMethod;
  readonly shapes: readonly Shape[];
  readonly transport: Transport;
  readonly caller: Caller;
  readonly headers: Readonly<Record<string, string>>;
  readonly mutation: Mutation;
  /** Begins while the one before it is still under way. */
  readonly together: boolean;
};

/** What is done to the bytes of a request after it was written. */
export type Mutation = { readonly name: string; apply(bytes: Uint8Array): Uint8Array };

export const AS_WRITTEN: Mutation = { name: "as written", apply: (bytes) => bytes };

const callers = fc.oneof(
  { weight: 70, arbitrary: fc.constant<Caller>("key") },
  { weight: 12, arbitrary: fc.constant<Caller>("user") },
  { weight: 10, arbitrary: fc.constantFrom<Caller>("operator", "operator-in-tenant") },
  { weight: 8, arbitrary: fc.constantFrom<Caller>("other", "bare", "none") },
);
const transports = fc.constantFrom<Transport>(
  "grpc",
  "grpc",
  "grpc-http",
  "grpc-web",
  "grpc-web-json",
  "connect-proto",
  "connect-json",
  "connect-json",
);

/** Text that an HTTP client can send in a header at all. */
const headerTexts = TEXTS.filter((text) => /^[\x20-\x7e\x80-\xff]*$/.test(text));
const headers = fc.oneof(
  { weight: 30, arbitrary: fc.constant({}) },
  {
    weight: 1,
    arbitrary: fc.record(
      {
        authorization: fc.oneof(
          fc.constantFrom(...headerTexts),
          fc.constantFrom("Bearer", "Bearer ", "Basic YTpi", "bearer *", `Bearer ${"x".repeat(9000)}`),
          fc.constantFrom("Bearer ph_", "Bearer ph_live_x", "Bearer a.b.c", "Bearer eyJhbGciOiJub25lIn0.e30."),
        ),
      },
      { requiredKeys: [] },
    ),
  },
  {
    weight: 2,
    arbitrary: fc.dictionary(
      fc.constantFrom(
        "posthorn-tenant",
        "traceparent",
        "tracestate",
        "x-forwarded-for",
        "baggage",
        "connect-protocol-version",
      ),
      fc.oneof(
        fc.constantFrom(...headerTexts),
        fc.constantFrom("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "1", "2"),
      ),
      { maxKeys: 2 },
    ),
  },
  {
    weight: 2,
    arbitrary: fc.dictionary(
      fc.constantFrom("grpc-timeout", "connect-timeout-ms"),
      fc.constantFrom(
        "0",
        "1",
        "0m",
        "1n",
        "1S",
        "99999999H",
        "999999999H",
        "-1",
        "abc",
        "",
        "1e3",
        "3600000",
        "99999999999",
        "2147483648",
      ),
      { minKeys: 1 },
    ),
  },
  {
    weight: 1,
    arbitrary: fc.dictionary(
      fc.constantFrom(
        "grpc-encoding",
        "content-encoding",
        "connect-content-encoding",
        "grpc-accept-encoding",
        "accept-encoding",
      ),
      fc.constantFrom("gzip", "identity", "br", "deflate", "nonsense", ""),
      { minKeys: 1, maxKeys: 2 },
    ),
  },
);

const tempers = fc.constantFrom<Temper>("valid", "valid", "mixed", "mixed", "hostile");

function shapesOf(method: DescMethod, temper: Temper): fc.Arbitrary<Shape[]> {
  const one = messages(method.input, temper);
  return method.methodKind === "bidi_streaming"
    ? fc.array(one, { minLength: 0, maxLength: 3 })
    : one.map((each) => [each]);
}

function transportsOf(method: DescMethod): fc.Arbitrary<Transport> {
  // Requests stream over HTTP/2 only, and fetch does not speak it.
  if (method.methodKind === "bidi_streaming") return fc.constantFrom<Transport>("grpc", "grpc-http");
  const reads = method.idempotency === 1 && method.methodKind === "unary";
  return reads ? fc.oneof({ weight: 4, arbitrary: transports }, fc.constant<Transport>("connect-get")) : transports;
}

/** Calls of a method as a client would make them, one after the other, with nothing wrong but what they say. */
export function plainSteps(method: DescMethod, temper: Temper, caller: Caller): fc.Arbitrary<Step> {
  return fc.record({
    method: fc.constant(method),
    shapes: shapesOf(method, temper),
    transport: transportsOf(method),
    caller: fc.constant(caller),
    headers: fc.constant({}),
    mutation: fc.constant(AS_WRITTEN),
    together: fc.constant(false),
  });
}

function stepsOf(method: DescMethod): fc.Arbitrary<Step> {
  return fc.record({
    method: fc.constant(method),
    shapes: tempers.chain((temper) => shapesOf(method, temper)),
    transport: transportsOf(method),
    caller: callers,
    headers: headers as fc.Arbitrary<Record<string, string>>,
    mutation: fc.oneof({ weight: 12, arbitrary: fc.constant(AS_WRITTEN) }, { weight: 1, arbitrary: mutations }),
    together: fc.boolean(),
  });
}

/** Up to `length` calls after one another or at the same time. */
export function sequences(length: number): fc.Arbitrary<Step[]> {
  return fc.array(fc.oneof(...METHODS.map(stepsOf)), { minLength: 1, maxLength: length });
}
