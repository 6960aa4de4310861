// What a team would build from the source documents: HTTP in, a BullMQ job for each notification, a row inserted for each,
// and a Socket.IO room for each user over the Redis adapter; one process, as Posthorn's in the same benchmark. It decides
// nothing: no preferences, no limits, no sequence. A client that comes back is sent the rows after its last. It speaks with
// the benchmark as all children do (child.ts), and is JavaScript because the types of its packages are not installed with
// ours.
import { createServer } from "node:http";
import { createInterface } from "node:readline";
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import { createAdapter } from "@socket.io/redis-adapter";
import { Queue, Worker } from "bullmq";
import { Redis } from "ioredis";
import { Server } from "socket.io";
import { openStore } from "./store.js";

const CONCURRENCY = 64;

const lines = createInterface({ input: process.stdin });
const tell = (event, fields = {}) => process.stdout.write(`${JSON.stringify({ event, ...fields })}\n`);
const fail = (error) => tell("failed", { message: error.message });

const closes = [];
lines.once("line", (line) =>
  serve(JSON.parse(line)).then(({ address, commands }) => {
    tell("ready", { address });
    lines.on("line", (line) => {
      const command = JSON.parse(line);
      commands[command.do](command).then(() => tell(command.do), fail);
    });
  }, fail),
);
lines.once("close", async () => {
  for (const close of closes.reverse()) await close().catch(() => undefined);
  process.exit();
});

async function serve({ databaseUrl, redisUrl, prefix }) {
  const store = await openStore(databaseUrl);
  closes.push(() => store.close());
  const redis = () => {
    const client = new Redis(redisUrl, { maxRetriesPerRequest: null });
    closes.push(async () => client.disconnect());
    return client;
  };
  const http = createServer((request, response) =>
    answer(request).then(
      (body) => response.writeHead(200, { "content-type": "application/json" }).end(JSON.stringify(body)),
      (error) => response.writeHead(500).end(error.message),
    ),
  );
  const io = new Server(http, { adapter: createAdapter(redis(), redis()), transports: ["websocket"] });
  io.on("connection", async (socket) => {
    const { userId, after } = socket.handshake.auth;
    socket.join(`user:${userId}`);
    for (const row of await store.after(userId, after)) socket.emit("notification", row);
  });

  const defaultJobOptions = { attempts: 3, backoff: { type: "exponential", delay: 1000 }, removeOnComplete: true };
  const queue = new Queue("notifications", { connection: redis(), prefix, defaultJobOptions });
  let handled = 0;
  const deliver = async ({ data: { userId, title, body, data } }) => {
    const row = await store.insert({ userId, title, body, data });
    io.to(`user:${userId}`).emit("notification", { ...row, title, body, data });
    handled++;
  };
  const worker = new Worker("notifications", deliver, { connection: redis(), prefix, concurrency: CONCURRENCY });
  worker.on("error", (error) => console.error(error.message));
  closes.push(async () => {
    await worker.close(true);
    await queue.obliterate({ force: true });
  });

  async function answer(request) {
    const { pathname, searchParams } = new URL(request.url, "http://peer");
    const userId = searchParams.get("userId");
    if (request.method === "GET" && pathname === "/unread") return await store.unread(userId);
    if (request.method === "GET")
      return await store.page(userId, searchParams.get("limit"), searchParams.get("offset"));
    const chunks = [];
    for await (const chunk of request) chunks.push(chunk);
    const message = JSON.parse(Buffer.concat(chunks).toString());
    if (pathname === "/broadcast") return void io.emit("notification", message);
    const jobs = message.items.map(({ priority, ...data }) => ({ name: "notification", data, opts: { priority } }));
    await queue.addBulk(jobs);
  }

  const commands = {
    settle: async () => {
      setFlagsFromString("--expose-gc");
      for (let i = 0; i < 3; i++) runInNewContext("gc")();
    },
    rest: () => worker.pause(),
    work: async () => worker.resume(),
    handled: async ({ count }) => {
      while (handled < count) await new Promise((resolve) => setTimeout(resolve, 20));
    },
  };
  // All clients may come at the same moment: the 511 that Node lets wait by itself are not what is measured.
  await new Promise((resolve) => http.listen({ port: 0, host: "127.0.0.1", backlog: 16_384 }, resolve));
  return { address: `127.0.0.1:${http.address().port}`, commands };
}
