import { once } from "node:events";
import { type AddressInfo, connect, createServer, type Socket } from "node:net";
import { afterAll, expect, onTestFinished, test } from "vitest";
import { startProxy, type TcpProxy } from "./proxy.ts";

/** Answers every chunk by itself, in brackets, and ends when the other side has. */
const server = createServer({ allowHalfOpen: true }, (socket) => {
  arrivals.push(socket);
  socket.on("error", () => undefined);
  socket.on("data", (data) => socket.write(`[${data}]`));
  socket.on("end", () => socket.end("."));
});
const arrivals: Socket[] = [];
server.listen(0, "127.0.0.1");
await once(server, "listening");
afterAll(() => server.close());

async function proxied(): Promise<TcpProxy> {
  const proxy = await startProxy(`tcp://127.0.0.1:${(server.address() as AddressInfo).port}`);
  onTestFinished(() => proxy[Symbol.asyncDispose]());
  return proxy;
}

type Client = { socket: Socket; heard(text: string): Promise<void>; ended: Promise<string> };

/** What has been heard is compared as a whole. */
async function client(proxy: TcpProxy): Promise<Client> {
  const socket = connect({ port: Number(new URL(proxy.url).port), host: "127.0.0.1" });
  onTestFinished(() => void socket.destroy());
  let all = "";
  const listeners = new Set<() => void>();
  socket.on("data", (data) => {
    all += data;
    for (const listener of listeners) listener();
  });
  const ended = new Promise<string>((resolve) => {
    socket.once("error", (error: NodeJS.ErrnoException) => resolve(error.code ?? ""));
    socket.once("close", () => resolve(`end after ${all}`));
  });
  await Promise.race([once(socket, "connect"), ended]);
  const heard = (text: string) =>
    new Promise<void>((resolve) => {
      const look = () => {
        if (all !== text) return;
        listeners.delete(look);
        resolve();
      };
      listeners.add(look);
      look();
    });
  return { socket, heard, ended };
}

/** Long enough for loopback to have carried anything. */
const moment = () => new Promise((resolve) => setTimeout(resolve, 30));

test("what is sent arrives, and an end is an end after it", async () => {
  const { socket, ended } = await client(await proxied());
  socket.end("hello");
  expect(await ended).toBe("end after [hello].");
});

test("a cut is the end of every connection, or a reset, for both sides; new ones are served", async () => {
  const proxy = await proxied();
  for (const [how, told] of [
    ["fin", "end after [a]"],
    ["rst", "ECONNRESET"],
  ] as const) {
    const cut = await client(proxy);
    cut.socket.write("a");
    await cut.heard("[a]");
    const upstream = arrivals.at(-1);
    const gone = new Promise((resolve) => upstream?.once("close", resolve));
    proxy.cut(how);
    expect(await cut.ended).toMatch(told);
    await gone;
  }
  const next = await client(proxy);
  next.socket.write("b");
  await next.heard("[b]");
  expect(proxy.connections).toBe(1);
});

test.each(["to-server", "to-client"] as const)(
  "silence %s holds back that way only, and nothing is lost",
  async (way) => {
    const proxy = await proxied();
    const { socket, heard } = await client(proxy);
    socket.write("a");
    await heard("[a]");
    const [upstream] = arrivals.slice(-1);
    const reached = () => upstream?.bytesRead;
    proxy.silence(way);
    socket.write("b");
    await moment();
    expect(reached()).toBe(way === "to-server" ? 1 : 2);
    await heard("[a]");
    await proxy.heal();
    await heard("[a][b]");
  },
);

test("a delay keeps the order and is not paid by each chunk anew", async () => {
  const proxy = await proxied();
  const { socket, heard } = await client(proxy);
  proxy.delay(500);
  const began = performance.now();
  socket.write("a");
  await moment();
  socket.write("b");
  await heard("[a][b]");
  const took = performance.now() - began;
  expect(took).toBeGreaterThan(1000);
  expect(took).toBeLessThan(1900);
});

test("so much arrives in a second, and no more", async () => {
  const proxy = await proxied();
  const { socket, heard } = await client(proxy);
  proxy.throttle(1000);
  const began = performance.now();
  socket.write("x".repeat(100));
  await heard(`[${"x".repeat(100)}]`);
  // A tenth of a second there, and another back.
  expect(performance.now() - began).toBeGreaterThan(190);
});

test.each([
  ["close", "end after "],
  ["not-listening", "ECONNREFUSED"],
] as const)("refusal by %s meets the new and spares the old", async (how, told) => {
  const proxy = await proxied();
  const old = await client(proxy);
  await proxy.refuse(how);
  expect(await (await client(proxy)).ended).toBe(told);
  old.socket.write("a");
  await old.heard("[a]");
  await proxy.heal();
  const next = await client(proxy);
  next.socket.write("b");
  await next.heard("[b]");
});
