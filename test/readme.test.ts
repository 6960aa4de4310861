// The README's examples, run as they stand there against a running platform. Only the addresses are replaced.
import { type ChildProcess, execFileSync, spawn } from "node:child_process";
import { cpSync, mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, expect, onTestFinished, test } from "vitest";
import { readConfig } from "#src/config.ts";
import { startServing } from "./cli/serving.ts";
import { type Block, blocks, README } from "./support/readme.ts";
import { testServices } from "./support/services.ts";

const root = join(import.meta.dirname, "..");

/** What gets and generates, and Posthorn's own commands: test/readme-commands.test.ts. */
const COMMANDS = /^(npm|npx posthorn|npx buf build|pip|go get) /;
/** What begins a collector that is not to be had here; what else it says is looked at. */
const COLLECTORS = /^(docker|TRACES_OTLP_ENDPOINT=\S+ otelcol) /;

const services = await testServices();
const serving = await startServing(services);
afterAll(() => serving[Symbol.asyncDispose]());
const token = (await serving.world.run("token ada")).out[0] ?? "";

test("every example in it is run here, or is only commands", () => {
  const examples = blocks.filter(({ language, text }) => language !== "sh" || !COMMANDS.test(text));
  const counts: Record<string, number> = {};
  for (const { language } of examples) counts[language] = (counts[language] ?? 0) + 1;
  // Two in sh begin collectors, those in other languages are run by test/interop, and what is no code is a picture.
  expect(counts).toEqual({ ts: 3, sh: 7, python: 1, go: 1, java: 1, json: 2, proto: 2, mermaid: 1, "": 2 });
});

test("what is set where a collector is begun is a setting, or is asked for by the collector's file", () => {
  const collectors = blocks.filter(({ text }) => COLLECTORS.test(text));
  expect(collectors).toHaveLength(2);
  const asked = [...readFileSync(join(root, "deploy/otel-collector.yaml"), "utf8").matchAll(/\$\{env:(\w+)\}/g)];
  for (const { text } of collectors) {
    const set = Object.fromEntries([...text.matchAll(/^([A-Z_]+=\S+ )+/gm)].flatMap(([line]) => assignments(line)));
    const { POSTHORN_OTLP_ENDPOINT } = set;
    expect(POSTHORN_OTLP_ENDPOINT).toBe("http://localhost:4318");
    expect(readConfig(set).telemetry.otlpEndpoint).toBe(POSTHORN_OTLP_ENDPOINT);
    if (text.includes("otelcol")) for (const [, name = ""] of asked) expect(set).toHaveProperty(name);
  }
});

function assignments(line: string): [string, string][] {
  return line
    .trim()
    .split(" ")
    .map((each) => each.split("=", 2) as [string, string]);
}

test("the catalogue of types is one that a pipeline can ask about", async () => {
  const types = blocks.find(({ language, text }) => language === "json" && text.includes('"invoice"'));
  const file = join(serving.world.dataDir, "catalogue.json");
  writeFileSync(file, types?.text ?? "");
  const { exitCode, out } = await serving.world.run(["types", "diff", file, "--exit-code"]);
  expect(exitCode).toBe(1);
  expect(out.join("\n")).toMatch(/invoice.*tip/s);
});

test("the tutorial of typed payloads pushes, refuses and checks as it says", async () => {
  const [first, second] = blocks.filter(({ language }) => language === "proto").map(({ text }) => text);
  const [push, check] = blocks.filter(({ text }) => text.includes("buf build")).map(({ text }) => linesOf(text));
  const dir = join(serving.world.dataDir, "tutorial");
  onTestFinished(() => rmSync(dir, { recursive: true, force: true }));
  cpSync(join(root, "proto/buf"), join(dir, "buf"), { recursive: true });
  mkdirSync(join(dir, "acme/orders/v1"), { recursive: true });
  const types = blocks.find(({ language, text }) => language === "json" && text.includes('"order_shipped"'));
  writeFileSync(join(dir, "types.json"), types?.text ?? "");
  const isFile = (word: string) => /^\w+\.(json|binpb)$/.test(word);
  const run = async (proto: string | undefined, commands: readonly string[][] = []) => {
    writeFileSync(join(dir, "acme/orders/v1/shipped.proto"), proto ?? "");
    const said = [];
    for (const [npx, program, ...words] of commands) {
      expect(npx).toBe("npx");
      const args = words.map((word) => (isFile(word) ? join(dir, word) : word));
      if (program === "buf") execFileSync(join(root, "node_modules/.bin/buf"), args, { cwd: dir });
      else said.push(await serving.world.run(args));
    }
    return said;
  };
  const pushed = await run(first, push);
  expect(pushed.map(({ exitCode }) => exitCode)).toEqual([0, 0, 0, 0, 0, 1]);
  expect(pushed[1]?.out).toEqual(["order_shipped: acme.orders.v1.OrderShipped is now its payload contract, version 1"]);
  expect(pushed[2]?.out).toContain("  1  order_id  string");
  const { out } = await serving.world.run("inbox --json");
  const read = out.map((line) => JSON.parse(line).content).filter(({ typed }) => typed !== undefined);
  expect(read).toMatchObject([
    { title: "On its way" },
    { title: "Order A-17 is on its way", body: "Parcels: 2", data: { orderId: "A-17", parcels: 2 } },
  ]);
  expect(README).toContain(`"${read[1]?.title}"`);
  const [checked] = await run(second, check);
  expect(checked?.exitCode).toBe(1);
  for (const words of [pushed[5]?.err, checked?.out].map((lines) => lines?.join(" ") ?? "")) {
    const [quoted = ""] = words.match(/(content|acme)\.\S+: .*?\)/) ?? [];
    expect(README.replaceAll(/\s+/g, " ")).toContain(quoted);
    expect(quoted).not.toBe("");
  }
  const line = (second ?? "").split("\n").findIndex((each) => each.includes("string parcels")) + 1;
  expect(checked?.err[0]).toContain(`file=acme/orders/v1/shipped.proto,line=${line},`);
});

/** Command lines as words, without their comments. */
function linesOf(text: string): string[][] {
  const lines = text.trim().split("\n");
  return lines.map((line) =>
    [...line.replace(/ {2,}#.*$/, "").matchAll(/'([^']*)'|"([^"]*)"|(\S+)/g)].map(([, a, b, c]) => a ?? b ?? c ?? ""),
  );
}

test("the TypeScript example sends", async () => {
  const example = run(exampleWith("ts", "SendService"));
  expect(await example.ended).toBe(0);
  expect(example.output()).toContain("status: 7"); // DELIVERED
  const { out } = await serving.world.run("inbox --json");
  expect(out.map((line) => JSON.parse(line).content.title)).toContain("Your order is on its way");
});

test("the curl example sends", async () => {
  const example = run(exampleWith("sh", "SendService/Send \\"));
  expect(await example.ended).toBe(0);
  expect(JSON.parse(example.output())).toMatchObject({ results: [{ status: "STATUS_DELIVERED", userId: "ada" }] });
});

test("the curl example changes a user's preferences, and takes them back", async () => {
  const own = (await serving.world.run("token ben")).out[0];
  const example = run(exampleWith("sh", "UpdatePreferences"), own);
  expect(await example.ended).toBe(0);
  // Two answers, one after the other.
  const [changed, reset] = example.output().replaceAll("}{", "}\n{").split("\n");
  expect(JSON.parse(changed ?? "")).toMatchObject({
    preferences: { digest: { mode: "MODE_DAILY" }, types: { HABIT_REMINDER: { enabled: false } } },
    changedFields: expect.arrayContaining(["time_zone", "quiet_hours.enabled", "digest.time"]),
  });
  expect(JSON.parse(reset ?? "")).toMatchObject({ etag: expect.any(String), reconciled: {} });
});

test("the grpcurl example's request is one the server understands", async () => {
  // grpcurl itself is not everywhere; buf's client finds the contract by the same reflection.
  const { text } = exampleWith("sh", "grpcurl -plaintext");
  const [, data = ""] = /-d '(.*)'/.exec(text) ?? [];
  const [, method = ""] = /(posthorn\.v1\.\w+\/\w+)/.exec(text) ?? [];
  const example = run({
    language: "sh",
    text: `npx buf curl --protocol grpc --http2-prior-knowledge -H "authorization: Bearer $POSTHORN_API_KEY" -d '${data}' \
      http://127.0.0.1:50051/${method}`,
  });
  expect(await example.ended).toBe(0);
  expect(example.output()).toContain("STATUS_ACCEPTED");
});

test("the TypeScript example subscribes", async () => {
  const example = run(exampleWith("ts", "StreamService"));
  await arrives(example, "Hello, TypeScript");
});

test("the curl example subscribes", async () => {
  const example = run(exampleWith("sh", "application/connect+json"));
  await example.until("caughtUp");
  await arrives(example, "Hello, curl");
});

test("the gRPC-Web example lists what is unread, and marks it read", async () => {
  await serving.world.run(["send", "ada", "-t", "Hello, gRPC-Web", "-p", "critical"]);
  const unread = async () => (await serving.world.run("inbox --unread --json")).out;
  await expect.poll(unread, { timeout: 60_000 }).toContainEqual(expect.stringContaining("Hello, gRPC-Web"));
  const example = run(exampleWith("ts", "createGrpcWebTransport"));
  expect(await example.ended, example.output()).toBe(0);
  expect(example.output()).toContain("Hello, gRPC-Web");
  expect(await unread()).toEqual([]);
});

test("the buf curl example subscribes", async () => {
  const example = run(exampleWith("sh", "buf curl"));
  await example.until("caughtUp");
  await arrives(example, "Hello, buf");
});

/**
 * Sends until it is seen: an example does not say when it is connected. CRITICAL, because that may be more often than ada
 * lets herself be told in an hour.
 */
async function arrives(example: Example, title: string): Promise<void> {
  await expect
    .poll(
      async () => {
        await serving.world.run(["send", "ada", "-t", title, "-p", "critical"]);
        return example.output();
      },
      { timeout: 60_000, interval: 200 },
    )
    .toContain(title);
}

function exampleWith(language: string, words: string): Block {
  const found = blocks.filter((block) => block.language === language && block.text.includes(words));
  expect(found, `examples with ${words}`).toHaveLength(1);
  return found[0] as Block;
}

type Example = { ended: Promise<number | null>; output(): string; until(words: string): Promise<void> };

const scratch = join(root, `.cache/readme-${process.pid}`);
afterAll(() => rmSync(scratch, { recursive: true, force: true }));

/** Starts an example; it is ended with the test. */
function run({ language, text }: Block, as = token): Example {
  const { state } = serving;
  const here = text.replaceAll("127.0.0.1:50051", state.server).replaceAll("http://127.0.0.1:8080", state.httpUrl);
  mkdirSync(scratch, { recursive: true });
  const file = join(scratch, `example.${language}`);
  writeFileSync(file, here);
  const child: ChildProcess = spawn(language === "ts" ? "node" : "bash", [file], {
    cwd: root,
    env: { ...process.env, POSTHORN_API_KEY: state.apiKey, TOKEN: as },
    detached: true,
    stdio: ["ignore", "pipe", "pipe"],
  });
  onTestFinished(() => {
    if (child.pid !== undefined && child.exitCode === null) process.kill(-child.pid, "SIGKILL");
  });
  let output = "";
  child.stdout?.on("data", (data) => {
    output += data;
  });
  child.stderr?.on("data", (data) => {
    output += data;
  });
  return {
    ended: new Promise((resolve) => child.once("close", resolve)),
    output: () => output,
    until: (words) => expect.poll(() => output, { timeout: 60_000 }).toContain(words),
  };
}
