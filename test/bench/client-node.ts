// The load client where there is no Go: the same jobs and answers as client/main.go, over @grpc/grpc-js. It takes so much of
// the machine that rates come out lower than they are.
import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import { type ClientReadableStream, credentials, Client as GrpcClient, Metadata } from "@grpc/grpc-js";
import {
  SendBatchRequestSchema,
  SendBatchResponseSchema,
  SendRequestSchema,
} from "#gen/posthorn/v1/send_service_pb.ts";
import { SubscribeRequestSchema, SubscribeResponseSchema } from "#gen/posthorn/v1/stream_service_pb.ts";
import { serveJob, tell } from "./child-side.ts";
import type { Job } from "./load.ts";

type Phase = "warming" | "measuring" | "over";
type Tally = { phase: Phase; count: number; times: number[]; failed: number; firstFailure: string };

const OPENING_AT_ONCE = 128;
const pause = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));
const asIs = (bytes: Buffer) => bytes;

serveJob<Job>(async (job) => {
  if (job.kind === "accept") return accept(job);
  if (job.protocol === "grpc") return endToEnd(job);
  throw new Error(`the client in Node does not speak ${job.protocol}`);
});

async function accept(job: Job): Promise<void> {
  const call = callsOver(job, job.connections);
  const tally: Tally = { phase: "warming", count: 0, times: [], failed: 0, firstFailure: "" };
  const callers = Array.from({ length: job.callers }, async (_, caller) => {
    while (tally.phase !== "over") {
      const began = performance.now();
      const measured = tally.phase === "measuring";
      try {
        await call.unary(caller, "SendService/Send", toBinary(SendRequestSchema, sendTo(userOf(job))));
        tally.count++;
        if (measured && tally.phase === "measuring") tally.times.push(performance.now() - began);
      } catch (error) {
        fail(tally, error);
        await pause(10);
      }
    }
  });
  tell("open");
  const rates = await phases(job, tally);
  await Promise.all(callers);
  tell("result", { ...rates, ...timesOf(tally), accepted: tally.count });
}

async function endToEnd(job: Job): Promise<void> {
  const sending = callsOver(job, job.connections);
  const streams = callsOver(job, job.streamConnections);
  const tally: Tally = { phase: "warming", count: 0, times: [], failed: 0, firstFailure: "" };
  const totals = { sent: 0, refused: 0, gaps: 0, doubles: 0, cuts: 0 };
  const expected = new Map<string, number>();
  const wakeups: (() => void)[] = [];
  let under = 0; // Sent and not arrived or refused.
  const settle = (n: number) => {
    under -= n;
    while (under + job.batch <= job.window && wakeups.length > 0) wakeups.shift()?.();
  };
  const subscribe = (userId: string, cursor: string, last: number): Promise<void> =>
    new Promise((caughtUp) => {
      const request = toBinary(
        SubscribeRequestSchema,
        create(SubscribeRequestSchema, { userId, cursor, deviceId: "bench" }),
      );
      const stream = streams.subscribe(Number(userId.slice(1)), request);
      stream.on("data", (bytes: Buffer) => {
        const { event } = fromBinary(SubscribeResponseSchema, bytes);
        if (event.case === "hello" && last === 0) last = Number(event.value.headSequence);
        if (event.case === "caughtUp") {
          cursor = event.value.cursor;
          caughtUp();
        }
        if (event.case !== "notification") return;
        const sequence = Number(event.value.entry?.sequence);
        cursor = event.value.cursor;
        if (sequence <= last) totals.doubles++;
        if (sequence <= last) return;
        if (sequence > last + 1) totals.gaps++;
        last = sequence;
        tally.count++;
        expected.set(userId, (expected.get(userId) ?? 0) - 1);
        if (tally.phase === "measuring")
          tally.times.push(now() - Number(event.value.entry?.content?.body.split(" ")[0]));
        settle(1);
      });
      stream.on("error", async (error) => {
        totals.cuts++;
        if (tally.firstFailure === "") tally.firstFailure = String(error);
        await pause(100);
        await subscribe(userId, cursor, last);
        caughtUp();
      });
    });

  const began = performance.now();
  let opened = 0;
  await Promise.all(
    Array.from({ length: OPENING_AT_ONCE }, async () => {
      while (opened < job.users) await subscribe(`u${opened++}`, "", 0);
    }),
  );
  const openMs = Math.round(performance.now() - began);
  tell("open", { streams: job.users, ms: openMs });

  const senders = Array.from({ length: job.callers }, async (_, caller) => {
    for (;;) {
      while (under + job.batch > job.window && tally.phase !== "over")
        await new Promise<void>((resolve) => wakeups.push(resolve));
      if (tally.phase === "over") return;
      under += job.batch;
      const users = Array.from({ length: job.batch }, () => userOf(job));
      const request = create(SendBatchRequestSchema, { items: users.map((user) => sendTo(user)) });
      try {
        const answer = await sending.unary(caller, "SendService/SendBatch", toBinary(SendBatchRequestSchema, request));
        const { results } = fromBinary(SendBatchResponseSchema, answer);
        let refused = 0;
        for (const [i, { result }] of results.entries()) {
          const user = users[i] ?? "";
          if (result.case === "response") expected.set(user, (expected.get(user) ?? 0) + 1);
          else refused++;
        }
        totals.sent += results.length - refused;
        totals.refused += refused;
        if (refused > 0) await pause(50);
        settle(refused);
      } catch (error) {
        fail(tally, error);
        await pause(50);
        settle(job.batch);
      }
    }
  });
  const rates = await phases(job, tally);
  for (const wake of wakeups) wake();
  await Promise.all(senders);
  const drainBegan = performance.now();
  while (tally.count < totals.sent && performance.now() - drainBegan < job.drainMs) await pause(10);
  const drainMs = Math.round(performance.now() - drainBegan);
  await pause(100);
  const lost = [...expected.values()].reduce((sum, missing) => sum + Math.max(missing, 0), 0);
  const doubles = totals.doubles + Math.max(tally.count - totals.sent, 0);
  tell("result", {
    ...rates,
    ...timesOf(tally),
    ...totals,
    doubles,
    lost,
    arrived: tally.count,
    openMs,
    drainMs,
    firstCut: "",
  });
}

/** Walks through the phases and counts what `tally.count` grew by while measuring. */
async function phases(job: Job, tally: Tally): Promise<{ rate: number; perSecond: number[] }> {
  await pause(job.warmupMs);
  tally.phase = "measuring";
  tell("measuring");
  const began = performance.now();
  const first = tally.count;
  const perSecond: number[] = [];
  for (let last = first, second = 1; ; second++) {
    await pause(Math.max(began + Math.min(second * 1000, job.measureMs) - performance.now(), 0));
    perSecond.push(tally.count - last);
    if (performance.now() - began >= job.measureMs) break;
    tell("second", { count: tally.count - last });
    last = tally.count;
  }
  const rate = ((tally.count - first) / (performance.now() - began)) * 1000;
  tally.phase = "over";
  tell("measured");
  return { rate, perSecond };
}

function timesOf({ times, failed, firstFailure }: Tally): object {
  times.sort((a, b) => a - b);
  const quantile = (q: number) => times[Math.max(Math.ceil(q * times.length) - 1, 0)] ?? 0;
  return {
    p50Ms: quantile(0.5),
    p90Ms: quantile(0.9),
    p99Ms: quantile(0.99),
    maxMs: quantile(1),
    failed,
    firstFailure,
  };
}

function fail(tally: Tally, error: unknown): void {
  tally.failed++;
  if (tally.firstFailure === "") tally.firstFailure = String(error);
}

/** Milliseconds on a clock that does not step, with fractions. */
const now = () => performance.now();
const userOf = (job: Job) => `u${Math.floor(Math.random() * job.users)}`;

function sendTo(userId: string) {
  const body = `${now()} The order has been shipped and is on its way to you.`;
  const content = { title: "Your order", body, data: { order: "12345", status: "shipped" } };
  return create(SendRequestSchema, { to: { userIds: [userId] }, content });
}

function callsOver(job: Job, connections: number) {
  const metadata = new Metadata();
  metadata.set("authorization", `Bearer ${job.apiKey}`);
  const options = { "grpc.use_local_subchannel_pool": 1, "grpc.max_receive_message_length": 64 << 20 };
  const clients = Array.from(
    { length: connections },
    () => new GrpcClient(job.address, credentials.createInsecure(), options),
  );
  const clientOf = (n: number) => clients[n % clients.length] as GrpcClient;
  return {
    unary: (n: number, method: string, request: Uint8Array) =>
      new Promise<Buffer>((resolve, reject) => {
        const path = `/posthorn.v1.${method}`;
        clientOf(n).makeUnaryRequest(path, asIs, asIs, Buffer.from(request), metadata, {}, (error, answer) =>
          error || answer === undefined ? reject(error) : resolve(answer),
        );
      }),
    subscribe: (n: number, request: Uint8Array): ClientReadableStream<Buffer> =>
      clientOf(n).makeServerStreamRequest(
        "/posthorn.v1.StreamService/Subscribe",
        asIs,
        asIs,
        Buffer.from(request),
        metadata,
        {},
      ),
  };
}
