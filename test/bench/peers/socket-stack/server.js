// What a team would build from the source documents: HTTP in, a BullMQ job for each notification, a row inserted for each,
// and a Socket.IO room for each user over the Redis adapter; one process, as Posthorn's in the same benchmark. It decides
// nothing: no preferences, no limits, no sequence, no resume. It speaks with the benchmark as all children do (child.ts),
// and is JavaScript because the types of its packages are not installed with ours.
import { createServer } from "node:http";
import { createInterface } from "node:readline";
import { createAdapter } from "@socket.io/redis-adapter";
import { Queue, Worker } from "bullmq";
import { Redis } from "ioredis";
import pg from "pg";
import { Server } from "socket.io";

const CONCURRENCY = 64;
const CONNECTIONS = 32;

const lines = createInterface({ input: process.stdin });
const tell = (event, fields = {}) => process.stdout.write(`${JSON.stringify({ event, ...fields })}\n`);

const closes = [];
lines.once("line", (line) =>
  serve(JSON.parse(line)).then(
    (address) => tell("ready", { address }),
    (error) => tell("failed", { message: error.message }),
  ),
);
lines.once("close", async () => {
  for (const close of closes.reverse()) await close().catch(() => undefined);
  process.exit();
});

async function serve({ databaseUrl, redisUrl, prefix }) {
  const pool = new pg.Pool({ connectionString: databaseUrl, max: CONNECTIONS });
  await pool.query("create schema if not exists bench_peer");
  await pool.query(`
    create table if not exists bench_peer.notifications (
      id bigserial primary key, user_id text not null, title text not null, body text not null, data jsonb,
      status text not null default 'delivered', read_at timestamptz, created_at timestamptz not null default now()
    )`);
  await pool.query("create index if not exists by_user on bench_peer.notifications (user_id, id)");
  closes.push(async () => {
    await pool.query("drop schema bench_peer cascade");
    await pool.end();
  });

  const redis = () => {
    const client = new Redis(redisUrl, { maxRetriesPerRequest: null });
    closes.push(async () => client.disconnect());
    return client;
  };
  const http = createServer(take);
  const io = new Server(http, { adapter: createAdapter(redis(), redis()), transports: ["websocket"] });
  io.on("connection", (socket) => socket.join(`user:${socket.handshake.auth.userId}`));

  const defaultJobOptions = { attempts: 3, backoff: { type: "exponential", delay: 1000 }, removeOnComplete: true };
  const queue = new Queue("notifications", { connection: redis(), prefix, defaultJobOptions });
  const worker = new Worker("notifications", deliver, { connection: redis(), prefix, concurrency: CONCURRENCY });
  worker.on("error", (error) => console.error(error.message));
  closes.push(async () => {
    await worker.close(true);
    await queue.obliterate({ force: true });
  });

  async function deliver({ data: { userId, title, body, data } }) {
    const { rows } = await pool.query(
      "insert into bench_peer.notifications (user_id, title, body, data) values ($1, $2, $3, $4) returning id, created_at",
      [userId, title, body, data],
    );
    io.to(`user:${userId}`).emit("notification", { ...rows[0], title, body, data });
  }

  async function take(request, response) {
    if (request.method !== "POST" || request.url !== "/notifications") return;
    try {
      const chunks = [];
      for await (const chunk of request) chunks.push(chunk);
      const { items } = JSON.parse(Buffer.concat(chunks).toString());
      await queue.addBulk(items.map((data) => ({ name: "notification", data })));
      response.writeHead(202).end();
    } catch (error) {
      response.writeHead(500).end(error.message);
    }
  }

  await new Promise((resolve) => http.listen(0, "127.0.0.1", resolve));
  return `127.0.0.1:${http.address().port}`;
}
