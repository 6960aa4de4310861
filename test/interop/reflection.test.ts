// grpcurl and buf curl know nothing of the contract but what server reflection tells them.
import { type ChildProcess, execFile, spawn } from "node:child_process";
import { join } from "node:path";
import type { DescEnum, DescMessage } from "@bufbuild/protobuf";
import { beforeAll, describe, expect, test } from "vitest";
import { SERVICES } from "../rpc/fakes.ts";
import { platformOfFile } from "../support/platform.ts";
import { goInstall } from "./toolchain.ts";

const BUF = join(import.meta.dirname, "../../node_modules/.bin/buf");
const GRPCURL = await goInstall("grpcurl", "github.com/fullstorydev/grpcurl/cmd/grpcurl@v1.9.3");
const HEALTH = "grpc.health.v1.Health";
const WRONG = JSON.stringify({ to: { userIds: ["ada lovelace"] }, content: { title: "Hello" } });
const RIGHT = JSON.stringify({ to: { userIds: ["ada"] }, content: { title: "Hello" }, waitForDecision: "5s" });

const node = await platformOfFile();
const address = node.platform.grpcUrl;
const key = `authorization: Bearer ${node.tenant.apiKey}`;
const names = SERVICES.map(({ typeName }) => typeName);
let token: string;
beforeAll(async () => {
  const created = await node.key.admin.createUserToken({ userId: "ada" });
  token = `authorization: Bearer ${created.token}`;
});

const withGrpcurl = (...args: string[]) => run(GRPCURL ?? "grpcurl", ["-plaintext", ...args]);

describe.skipIf(GRPCURL === undefined)("grpcurl (needs Go)", () => {
  test("lists every service, and every method of one", async () => {
    const { out } = await withGrpcurl(address, "list");
    expect(out.trim().split("\n")).toEqual(expect.arrayContaining([HEALTH, ...names]));
    for (const { typeName, methods } of SERVICES) {
      const listed = (await withGrpcurl(address, "list", typeName)).out.trim().split("\n");
      expect(listed.sort()).toEqual(methods.map((method) => `${typeName}.${method.name}`).sort());
    }
  });

  test("describes every service, message and enum of the contract", { timeout: 120_000 }, async () => {
    const symbols = new Map<string, string>(SERVICES.map(({ typeName }) => [typeName, "a service"]));
    const files = new Set(SERVICES.flatMap(({ file }) => [file, ...file.dependencies]));
    for (const { messages, enums } of files) {
      for (const each of enums) symbols.set(each.typeName, "an enum");
      for (const each of messages.flatMap(withNested)) {
        symbols.set(each.typeName, each.kind === "message" ? "a message" : "an enum");
      }
    }
    expect(symbols.size).toBeGreaterThan(200);
    const waiting = [...symbols];
    const describeNext = async (): Promise<void> => {
      for (let next = waiting.shift(); next !== undefined; next = waiting.shift()) {
        const [symbol, kind] = next;
        const { out, err } = await withGrpcurl(address, "describe", symbol);
        expect(`${err}${out.split("\n")[0]}`).toBe(`${symbol} is ${kind}:`);
      }
    };
    await Promise.all([describeNext(), describeNext(), describeNext()]);
  });

  test("asks for health", async () => {
    const service = JSON.stringify({ service: "posthorn.v1.SendService" });
    const { out } = await withGrpcurl("-d", service, address, `${HEALTH}/Check`);
    expect(JSON.parse(out)).toEqual({ status: "SERVING" });
  });

  test("sends", async () => {
    const { out } = await withGrpcurl("-H", key, "-d", RIGHT, address, "posthorn.v1.SendService/Send");
    expect(JSON.parse(out)).toMatchObject({ results: [{ userId: "ada", status: "STATUS_DELIVERED" }] });
  });

  test("shows the details of a refusal in words", async () => {
    const { err } = await withGrpcurl("-H", key, "-d", WRONG, address, "posthorn.v1.SendService/Send");
    expect(err).toContain("Code: InvalidArgument");
    expect(detailsIn(err)).toEqual(
      expect.arrayContaining([
        expect.objectContaining({ "@type": "type.googleapis.com/google.rpc.ErrorInfo", reason: "INVALID_REQUEST" }),
        expect.objectContaining({
          "@type": "type.googleapis.com/google.rpc.BadRequest",
          fieldViolations: [expect.objectContaining({ field: "to.user_ids[0]" })],
        }),
      ]),
    );
  });

  test("follows a stream", async () => {
    const args = ["-plaintext", "-H", token, address, "posthorn.v1.StreamService/Subscribe"];
    await follows(GRPCURL ?? "", args, "Hello, grpcurl");
  });
});

describe("buf curl", () => {
  const bufCurl = (...args: string[]) => run(BUF, ["curl", "--protocol", "grpc", "--http2-prior-knowledge", ...args]);
  const url = (path = "") => `http://${address}/${path}`;

  test("lists every service, and every method", async () => {
    const services = (await bufCurl("--list-services", url())).out.trim().split("\n");
    expect(services).toEqual(expect.arrayContaining([HEALTH, ...names]));
    const methods = (await bufCurl("--list-methods", url())).out.trim().split("\n");
    const all = SERVICES.flatMap(({ typeName, methods }) => methods.map(({ name }) => `${typeName}/${name}`));
    expect(methods).toEqual(expect.arrayContaining(all));
  });

  test("sends", async () => {
    const { out } = await bufCurl("-H", key, "-d", RIGHT, url("posthorn.v1.SendService/Send"));
    expect(JSON.parse(out)).toMatchObject({ results: [{ userId: "ada", status: "STATUS_DELIVERED" }] });
  });

  test("shows the details of a refusal in words", async () => {
    const { err } = await bufCurl("-H", key, "-d", WRONG, url("posthorn.v1.SendService/Send"));
    expect(JSON.parse(err)).toMatchObject({
      code: "invalid_argument",
      details: expect.arrayContaining([
        expect.objectContaining({ type: "google.rpc.ErrorInfo" }),
        expect.objectContaining({ type: "google.rpc.BadRequest" }),
      ]),
    });
  });

  test("follows a stream", async () => {
    const args = ["curl", "--protocol", "grpc", "--http2-prior-knowledge", "-H", token];
    await follows(BUF, [...args, url("posthorn.v1.StreamService/Subscribe")], "Hello, buf");
  });
});

/** A message with the messages and enums declared in it. */
function withNested(message: DescMessage): (DescMessage | DescEnum)[] {
  return [message, ...message.nestedEnums, ...message.nestedMessages.flatMap(withNested)];
}

/** The details that grpcurl prints of an error, each a number and a JSON object. */
function detailsIn(text: string): unknown[] {
  return text
    .slice(text.indexOf("Details:"))
    .split(/^ *\d+\)/m)
    .slice(1)
    .map((each) => JSON.parse(each));
}

/** Starts a client that prints a stream, sends once it has caught up, and waits until it is printed. */
async function follows(program: string, args: readonly string[], title: string): Promise<void> {
  const child: ChildProcess = spawn(program, args, { stdio: ["ignore", "pipe", "pipe"] });
  let said = "";
  const saying = new Set<() => void>();
  for (const stream of [child.stdout, child.stderr]) {
    stream?.on("data", (data) => {
      said += data;
      for (const look of saying) look();
    });
  }
  const says = (words: string) =>
    new Promise<void>((resolve, reject) => {
      const look = () => said.includes(words) && resolve();
      saying.add(look);
      child.once("close", () => reject(new Error(`it ended without ${words}: ${said}`)));
      look();
    });
  try {
    await says("caughtUp");
    await node.key.send.send({ to: { userIds: ["ada"] }, content: { title } });
    await says(title);
  } finally {
    child.kill("SIGKILL");
  }
}

type Ran = { out: string; err: string };

/** Runs a program to its end, whichever it is. */
function run(program: string, args: readonly string[]): Promise<Ran> {
  return new Promise((resolve) => {
    execFile(program, args, { maxBuffer: 1 << 26 }, (_, out, err) => resolve({ out, err }));
  });
}
