import {
  create,
  type DescMethodBiDiStreaming,
  type DescMethodUnary,
  fromBinary,
  type MessageInitShape,
  type MessageShape,
} from "@bufbuild/protobuf";
import { expect } from "vitest";
import { type Call, EitherWay, Encoded, type Handler, type Service } from "#src/rpc/call.ts";

/** Calls a handler as the adapters do, without a transport. What it has for both protocols must be the same in both. */
export async function invoke<M extends DescMethodUnary>(
  service: Service,
  method: M,
  request: MessageInitShape<M["input"]>,
  call: Call,
): Promise<MessageShape<M["output"]>> {
  const handler = service.handlers[method.localName] as Handler<M> | undefined;
  if (handler === undefined) throw new Error(`${method.name} has no handler`);
  const unary = handler as (request: MessageShape<M["input"]>, call: Call) => Promise<MessageInitShape<M["output"]>>;
  const message = create(method.input, request) as MessageShape<M["input"]>;
  const answer: unknown = await unary(message, call);
  if (!(answer instanceof EitherWay))
    return create(method.output, answer as MessageInitShape<M["output"]>) as MessageShape<M["output"]>;
  const answered = create(method.output, answer.message()) as MessageShape<M["output"]>;
  expect(fromBinary(method.output, answer.bytes())).toEqual(answered);
  return answered;
}

/** The same for methods that stream both ways. */
export async function* invokeBidi<M extends DescMethodBiDiStreaming>(
  service: Service,
  method: M,
  requests: Iterable<MessageInitShape<M["input"]>> | AsyncIterable<MessageInitShape<M["input"]>>,
  call: Call,
): AsyncGenerator<MessageShape<M["output"]>> {
  const handler = service.handlers[method.localName] as unknown as (
    requests: AsyncIterable<MessageShape<M["input"]>>,
    call: Call,
  ) => AsyncIterable<MessageInitShape<M["output"]> | Encoded>;
  async function* messages() {
    for await (const request of requests) yield create(method.input, request) as MessageShape<M["input"]>;
  }
  for await (const response of handler(messages(), call)) {
    if (response instanceof Encoded) throw new Error("the handler encoded its answer; decode it in the test");
    yield create(method.output, response) as MessageShape<M["output"]>;
  }
}
