// A bare grpc-js server that keeps streams open and writes the same ready bytes to all of them: what the transport alone
// costs in memory and time. It speaks as much of the contract as the load client needs.
import { Server, ServerCredentials, type ServerWritableStream } from "@grpc/grpc-js";
import { collectGarbage, serveJob, tell } from "../child-side.ts";

const asIs = (bytes: Buffer) => bytes;
const bytes = { requestSerialize: asIs, requestDeserialize: asIs, responseSerialize: asIs, responseDeserialize: asIs };

/** SubscribeResponse: an empty Hello, an empty CaughtUp. */
const HELLO = Buffer.from([0x0a, 0]);
const CAUGHT_UP = Buffer.from([0x1a, 0]);

serveJob(async (_, closing) => {
  const streams = new Set<ServerWritableStream<Buffer, Buffer>>();
  const server = new Server();
  server.addService(
    {
      subscribe: { path: "/posthorn.v1.StreamService/Subscribe", requestStream: false, responseStream: true, ...bytes },
      broadcast: {
        path: "/posthorn.v1.StreamService/Broadcast",
        requestStream: false,
        responseStream: false,
        ...bytes,
      },
    },
    {
      subscribe: (stream: ServerWritableStream<Buffer, Buffer>) => {
        streams.add(stream);
        stream.on("cancelled", () => streams.delete(stream));
        stream.write(HELLO);
        stream.write(CAUGHT_UP);
      },
      broadcast: ({ request }: { request: Buffer }, reply: (error: null, answer: Buffer) => void) => {
        const announcement = announcementOf(request);
        for (const stream of streams) stream.write(announcement);
        reply(null, Buffer.alloc(0));
      },
    },
  );
  const port = await new Promise<number>((resolve, reject) => {
    server.bindAsync("127.0.0.1:0", ServerCredentials.createInsecure(), (error, port) =>
      error ? reject(error) : resolve(port),
    );
  });
  closing(async () => server.forceShutdown());
  tell("ready", { address: `127.0.0.1:${port}` });
  return async () => tell("settle", collectGarbage());
});

/** BroadcastRequest, two bytes of audience and then its content as field 5, to an Announcement with that as field 2. */
function announcementOf(request: Buffer): Buffer {
  const content = request.subarray(2);
  const body = Buffer.concat([Buffer.from([0x12]), content.subarray(1)]);
  if (body.length > 0x3fff) throw new Error("an announcement of the benchmark is short");
  return Buffer.concat([Buffer.from([0x5a, (body.length & 0x7f) | 0x80, body.length >> 7]), body]);
}
