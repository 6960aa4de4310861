// A bare grpc-js server that answers Send with a ready answer: what the transport alone costs.
import { Server, ServerCredentials } from "@grpc/grpc-js";
import { serveJob, tell } from "../child-side.ts";

const asIs = (bytes: Buffer) => bytes;

serveJob(async (_, closing) => {
  const server = new Server();
  // The size of a SendResponse with one result.
  const answer = Buffer.alloc(70);
  server.addService(
    {
      send: {
        path: "/posthorn.v1.SendService/Send",
        requestStream: false,
        responseStream: false,
        requestSerialize: asIs,
        requestDeserialize: asIs,
        responseSerialize: asIs,
        responseDeserialize: asIs,
      },
    },
    { send: (_call: unknown, reply: (error: null, answer: Buffer) => void) => reply(null, answer) },
  );
  const port = await new Promise<number>((resolve, reject) => {
    server.bindAsync("127.0.0.1:0", ServerCredentials.createInsecure(), (error, port) =>
      error ? reject(error) : resolve(port),
    );
  });
  closing(async () => server.forceShutdown());
  tell("ready", { address: `127.0.0.1:${port}` });
});
