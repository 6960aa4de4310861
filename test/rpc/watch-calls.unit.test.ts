import { connect } from "node:http2";
import { create, toBinary } from "@bufbuild/protobuf";
import { describe, expect, type TestContext, test } from "vitest";
import { SendStreamRequestSchema } from "#gen/posthorn/v1/send_service_pb.ts";
import { Code } from "#src/errors.ts";
import { envelope } from "../attack/frames.ts";
import { startPorts } from "./fakes.ts";
import { beginCall, endOf } from "./raw-calls.ts";

// What the time of a caller is, in a gRPC call whose request is a stream. The tests wait, and wait together.

const chunk = envelope(
  toBinary(
    SendStreamRequestSchema,
    create(SendStreamRequestSchema, { items: [{ to: { userIds: ["u1"] }, content: { title: "t" } }] }),
  ),
);
const begin = async ({ onTestFinished }: TestContext, handleMs = 0) => {
  const ports = await startPorts({
    grpc: { requestTimeoutMs: 200 },
    handlers: {
      "SendService.SendStream": async function* (requests) {
        for await (const { chunkId } of requests) {
          yield { chunkId };
          await new Promise((resolve) => setTimeout(resolve, handleMs));
        }
      },
    },
  });
  onTestFinished(() => ports[Symbol.asyncDispose]());
  const session = connect(`http://127.0.0.1:${ports.grpc.port}`);
  session.on("error", () => undefined);
  onTestFinished(() => session.destroy());
  return beginCall(session, "/posthorn.v1.SendService/SendStream", { authorization: "Bearer key:*" });
};
/** Twice as long as it takes to be noticed. */
const aWhile = () => new Promise((resolve) => setTimeout(resolve, 2_600));

describe.concurrent("a gRPC call whose request is a stream", () => {
  test("a message that stays unfinished ends the call", async (context) => {
    const stream = await begin(context);
    stream.write(Buffer.concat([chunk, chunk.subarray(0, 10)]));
    expect(await endOf(stream)).toMatchObject({ status: Code.DEADLINE_EXCEEDED, typed: Code.DEADLINE_EXCEEDED });
  });

  test("the time between messages is the caller's", async (context) => {
    const stream = await begin(context);
    stream.write(chunk);
    await aWhile();
    stream.end(chunk);
    expect(await endOf(stream)).toMatchObject({ status: 0 });
  });

  test("the time of the handler is not the caller's", async (context) => {
    const stream = await begin(context, 2_600);
    // One message is read ahead, the rest of the next not before the handler asks for more.
    stream.write(Buffer.concat([chunk, chunk, chunk.subarray(0, 10)]));
    await aWhile();
    stream.end(chunk.subarray(10));
    expect(await endOf(stream)).toMatchObject({ status: 0 });
  });

  test("messages that follow each other closely are not taken for one", async (context) => {
    const stream = await begin(context);
    const timer = setInterval(() => stream.write(Buffer.concat([chunk.subarray(10), chunk.subarray(0, 10)])), 20);
    stream.write(chunk.subarray(0, 10));
    await aWhile();
    clearInterval(timer);
    stream.end(chunk.subarray(10));
    expect(await endOf(stream)).toMatchObject({ status: 0 });
  });
});
