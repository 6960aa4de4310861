// Clients in other languages, generated from proto/ by each language's stock tools. Each goes through the same story, with a
// node that limits calls, and through a connection that is cut while another node goes on sending.
import { spawn } from "node:child_process";
import { mkdir, readFile, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { beforeAll, describe, expect, test } from "vitest";
import { Scope } from "#gen/posthorn/v1/admin_service_pb.ts";
import { GO, JDK, MAVEN, PYTHON, type Tool, VENV } from "#src/dev/toolchains.ts";
import { startProxy } from "../fault/lab/proxy.ts";
import { startTestPlatform, type TestPlatform } from "../support/platform.ts";
import { testServices } from "../support/services.ts";
import { type Fact, listenTo, type Story } from "./story.ts";
import { build } from "./toolchain.ts";

type Language = {
  name: string;
  directory: string;
  tools: readonly Tool[];
  command: readonly string[];
  /** The short client in the README: its file beside what was built, and what runs it. */
  shown: { file: string; command: readonly string[] };
};

const LANGUAGES: readonly Language[] = [
  {
    name: "Python",
    directory: "python",
    tools: [PYTHON, VENV],
    command: ["env", "PYTHONPATH=gen", "venv/bin/python", "client.py"],
    shown: {
      file: "shown.py",
      command: ["env", "PYTHONPATH=gen", "PYTHONUNBUFFERED=1", "venv/bin/python", "shown.py"],
    },
  },
  {
    name: "Go",
    directory: "go",
    tools: [GO],
    command: ["./client"],
    shown: { file: "shown/main.go", command: ["go", "run", "./shown"] },
  },
  {
    name: "Java",
    directory: "java",
    tools: [JDK, MAVEN],
    command: ["java", "-cp", "target/classes:target/lib/*", "examples.Client"],
    shown: { file: "Example.java", command: ["java", "-cp", "target/classes:target/lib/*", "Example.java"] },
  },
];

/** Low enough to be met by a client that does nothing else; it only counts at the node the clients call. */
const LIMITS = { POSTHORN_API_KEY_REQUESTS_PER_SECOND: "5", POSTHORN_API_KEY_BURST: "60" };

/** A story takes two reconnects of a second or two, and the start of a virtual machine for Java's. */
const STORIES_MS = 240_000;

const services = await testServices();
const builds = await Promise.all(LANGUAGES.map(({ directory, tools }) => attempt(build(directory, tools))));
const stories = new Map<string, Told | Error>();

beforeAll(async () => {
  await using limited = await startTestPlatform({ services, roles: ["api", "stream"], env: LIMITS });
  await using unlimited = await startTestPlatform({ services, roles: ["api", "worker"], tenant: limited.tenant });
  await Promise.all(
    LANGUAGES.map(async (language, n) => {
      const built = builds[n];
      if (built instanceof Error || built?.kind !== "built") return;
      stories.set(language.name, await attempt(tell(language, built.directory, limited, unlimited)));
    }),
  );
}, STORIES_MS);

for (const [n, language] of LANGUAGES.entries()) {
  const { name } = language;
  const built = builds[n];
  if (built !== undefined && "kind" in built && built.kind === "missing") {
    test.skip(`clients in ${name} (needs ${built.what})`, () => undefined);
    continue;
  }
  const told = (): Told => {
    const story = built instanceof Error ? built : stories.get(name);
    if (story === undefined || story instanceof Error) throw story ?? new Error("there is no story");
    return story;
  };

  describe(`a client in ${name}`, () => {
    test("is told that the service is healthy", () => {
      expect(told().one("health")).toMatchObject({ status: "SERVING" });
    });

    test("sends again with the same idempotency key, and nothing is sent again", () => {
      const [id] = told().one("sent").ids as string[];
      expect(id).toMatch(/^[0-9a-f-]{36}$/);
      expect(told().one("repeated").ids).toEqual([id]);
    });

    test("reads which field is wrong, and why, from the details of a refusal", () => {
      expect(told().one("refused")).toMatchObject({
        code: "INVALID_ARGUMENT",
        reason: "INVALID_REQUEST",
        fields: { "to.user_ids[0]": expect.stringMatching(/\w/) },
      });
    });

    test("pages a list to its end", () => {
      const { pages, sent, ids } = told().one("listed") as unknown as { pages: number; sent: string[]; ids: string[] };
      expect(pages).toBe(3);
      expect(sent).toHaveLength(25);
      expect(ids).toEqual(sent.toReversed());
    });

    test("reads how long to wait from the details of a refusal, and is let in then", () => {
      const { reason, retryDelayMs } = told().one("limited");
      expect(reason).toBe("API_LIMIT_EXCEEDED");
      expect(retryDelayMs).toBeGreaterThan(0);
      expect(retryDelayMs).toBeLessThanOrEqual(1000 / Number(LIMITS.POSTHORN_API_KEY_REQUESTS_PER_SECOND));
      told().one("allowed again");
    });

    test("loses its connection twice while it is sent to, and gets everything once and in order", () => {
      const { story, sent } = told();
      const arrived = story.of("arrived");
      expect(arrived.map(({ title }) => title).slice(-sent.length)).toEqual(sent);
      const sequences = arrived.map(({ sequence }) => Number(sequence));
      expect(sequences).toEqual(sequences.map((_, i) => (sequences[0] ?? 0) + i));
      expect(story.of("caught up")).toHaveLength(3);
      expect(story.of("cut").length).toBeGreaterThanOrEqual(2);
      expect(new Set(story.of("cut").map(({ code }) => code))).toEqual(new Set(["UNAVAILABLE"]));
      expect(arrived.filter(({ replayed }) => replayed).length).toBeGreaterThanOrEqual(2 * MISSED);
      expect(story.of("reset")).toEqual([]);
    });

    test("the short one in the README sends, and prints what comes", async () => {
      if (built === undefined || built instanceof Error) throw built ?? new Error("it was not built");
      await using node = await startTestPlatform({ services });
      await using client = await runShown(language, built.directory, node.platform.grpcUrl, node.tenant.apiKey);
      await expect.poll(client.said, { timeout: 120_000 }).toMatch(/^sent [0-9a-f-]{36}$/m);
      // It does not say when it is connected.
      const send = () => node.key.send.send({ to: { userIds: ["ada"] }, content: { title: `Hello, ${name}` } });
      await expect
        .poll(() => send().then(client.said), { timeout: 60_000 })
        .toMatch(new RegExp(`^Hello, ${name} \\d+$`, "m"));
    }, 180_000);
  });
}

/** As a user would: copied into a file beside the generated code. Only the address is another. */
async function runShown(
  { directory: language, shown: { file, command } }: Language,
  directory: string,
  address: string,
  apiKey: string,
): Promise<AsyncDisposable & { said(): string }> {
  const readme = await readFile(new URL("../../README.md", import.meta.url), "utf8");
  const [, shown = ""] = new RegExp(`^\`\`\`${language}\n([\\s\\S]*?)^\`\`\`$`, "m").exec(readme) ?? [];
  expect(shown).toContain("127.0.0.1:50051");
  await mkdir(dirname(join(directory, file)), { recursive: true });
  await writeFile(join(directory, file), shown.replace("127.0.0.1:50051", address));
  const env = { ...process.env, GOFLAGS: "-buildvcs=false", POSTHORN_API_KEY: apiKey };
  const [program = "", ...args] = command;
  // In a group of its own: what `go run` has built outlives it.
  const child = spawn(program, args, { cwd: directory, env, detached: true });
  const ended = new Promise((resolve) => child.once("close", resolve));
  let said = "";
  for (const output of [child.stdout, child.stderr])
    output.on("data", (data) => {
      said += data;
    });
  return {
    said: () => said,
    async [Symbol.asyncDispose]() {
      if (child.pid !== undefined && child.exitCode === null) process.kill(-child.pid, "SIGKILL");
      await ended;
    },
  };
}

type Told = { story: Story; sent: readonly string[]; one(fact: string): Fact };

/** Notifications sent while the client is away, each time. */
const MISSED = 20;

/** Lets a client tell its whole story, and cuts its connection in the middle. */
async function tell(
  language: Language,
  directory: string,
  limited: TestPlatform,
  unlimited: TestPlatform,
): Promise<Told> {
  const user = language.directory;
  const scopes = [Scope.SEND, Scope.NOTIFICATIONS_READ, Scope.ADMIN];
  const { secret } = await unlimited.key.admin.createApiKey({ displayName: language.name, scopes });
  await using network = await startProxy(`http://${limited.platform.grpcUrl}`);
  await using story = listenTo(language.command, directory, {
    POSTHORN_ADDRESS: new URL(network.url).host,
    POSTHORN_API_KEY: secret,
    POSTHORN_USER: user,
  });
  const sent: string[] = [];
  const send = async (title: string) => {
    const to = { userIds: [user] };
    // Decided one after the other, so that they arrive in this order.
    await unlimited.key.send.send({ to, content: { title }, waitForDecision: { seconds: 10n } });
    sent.push(title);
  };
  const sendSome = async (count: number) => {
    for (let i = 0; i < count; i++) await send(`number ${sent.length + 1}`);
  };

  await story.told("caught up");
  for (const [n, how] of (["fin", "rst"] as const).entries()) {
    const live = sendSome(MISSED);
    await story.told("arrived", sent.length + MISSED / 2);
    await network.refuse("close");
    network.cut(how);
    await story.told("cut", story.of("cut").length + 1);
    await live;
    await sendSome(MISSED);
    await network.heal();
    await Promise.all([sendSome(MISSED), story.told("caught up", n + 2)]);
  }
  await send("The end");
  expect(await story.ended, story.complaints()).toBe(0);
  return {
    story,
    sent,
    one(fact) {
      const [only, ...more] = story.of(fact);
      if (only === undefined || more.length > 0) throw new Error(`it told "${fact}" ${story.of(fact).length} times`);
      return only;
    },
  };
}

function attempt<T>(promise: Promise<T>): Promise<T | Error> {
  return promise.catch((error: unknown) => (error instanceof Error ? error : new Error(String(error))));
}
