import type { DescMethod } from "@bufbuild/protobuf";
import { ENOUGH_MESSAGES, QUIET_MS } from "./answer.ts";
import { type Frame, framesOf } from "./over-grpc.ts";

/** What was read of a stream: its messages, and the frame that ends it, unless it was left before. */
export type ReadFrames = { messages: Buffer[]; end: Buffer | undefined; wasLeft: boolean };

/** Reads a body of frames to the one that carries `endFlag`, or until it has been enough of a stream that goes on for ever. */
export async function readFrames(response: Response, method: DescMethod, endFlag: number): Promise<ReadFrames> {
  const reader = response.body?.getReader();
  const isEnd = ({ flags }: Frame) => (flags & endFlag) !== 0;
  let bytes = Buffer.alloc(0);
  for (;;) {
    const quiet = Promise.withResolvers<undefined>();
    const endless = method.methodKind === "server_streaming" && bytes.length > 0;
    const timer = endless ? setTimeout(() => quiet.resolve(undefined), QUIET_MS) : undefined;
    const next = await Promise.race([reader?.read(), ...(endless ? [quiet.promise] : [])]);
    clearTimeout(timer);
    if (next?.value !== undefined) bytes = Buffer.concat([bytes, next.value]);
    const frames = framesOf(bytes);
    const end = frames.find(isEnd)?.data;
    const messages = frames.filter((frame) => !isEnd(frame)).map(({ data }) => data);
    const wasLeft = end === undefined && (next === undefined || (endless && messages.length >= ENOUGH_MESSAGES));
    if (end !== undefined || wasLeft || next?.done) return { messages, end, wasLeft };
  }
}
