import { mkdtempSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Http2SessionManager } from "@connectrpc/connect-node";
import postgres from "postgres";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { BatchState } from "#gen/posthorn/v1/batch_service_pb.ts";
import { startServices } from "#src/dev/services.ts";
import { startProxy, type TcpProxy } from "../../fault/lab/proxy.ts";
import { ALL_SCOPES } from "../../support/call.ts";
import { type Clients, clientsOver } from "../../support/platform.ts";
import { until } from "../../support/until.ts";
import { leaksOf } from "../fuzz/judge.ts";
import { type PosthornProcess, startPosthorn } from "../posthorn-process.ts";
import { foundIn } from "./canaries.ts";
import { callsWith, exercise, knock, makeCanaries, PHONE } from "./exercise.ts";
import { aboutWaiting, allRefused, makeWaiting, type Waiting } from "./outside.ts";
import { filesUnder, natsTraffic, postgresContent, redisContent, spanSink } from "./places.ts";

// A process that says all it can, on servers of its own whose files can be read, each behind a proxy that can be cut.
// What nobody should read is put into every field that takes it, in good times and in every kind of bad ones, and
// outside channels take it, or refuse it repeating every word; then everything that was written anywhere is searched.

const canary = makeCanaries();
const secrets: Record<string, string> = { ...canary, phone: PHONE };
const stack = new AsyncDisposableStack();
afterAll(() => stack.disposeAsync());

let directory: string;
let direct: { databaseUrl: string; natsUrl: string; redisUrl: string };
let database: TcpProxy;
let nats: TcpProxy;
let redis: TcpProxy;
let traffic: { heads(): string; queued(): string };
let sink: { spans(): Buffer };
let posthorn: PosthornProcess;
let clients: Clients;
let asUser: Clients;
let waiting: Waiting;
let authorization: string;
/** What was said to others than who wrote it, or about credentials. */
const errors: string[] = [];
/** What was said to who wrote it, when it was refused. */
const refusals: string[] = [];

/** Names of the caller's own that do not exist, which it is told again, and in which words. */
const ECHOED: Readonly<Record<string, readonly string[]>> = {
  wrongField: ["update_mask.paths[0]: there is no field `"],
  filter: ["subscription.filter: at character 1: there is no "],
  payloadKey: ['content.data.notes["'],
  payloadField: ["content.data."],
  payloadType: ["must be a acme.Shipped, not acme."],
};

/** What there is to call about a user. */
const callsAbout = (userId: string) => [
  ...callsWith(clients, canary, userId),
  ...aboutWaiting(clients, asUser, canary, waiting),
];

beforeAll(async () => {
  directory = mkdtempSync(join(tmpdir(), "posthorn-canary-"));
  const services = stack.use(
    await startServices({ dataDir: directory, keep: false, durable: false, log: () => undefined }),
  );
  direct = services;
  database = stack.use(await startProxy(services.databaseUrl));
  nats = stack.use(await startProxy(services.natsUrl));
  redis = stack.use(await startProxy(services.redisUrl));
  traffic = stack.use(await natsTraffic(services.natsUrl));
  const spans = stack.use(await spanSink());
  sink = spans;
  posthorn = stack.use(
    await startPosthorn(
      { databaseUrl: database.url, natsUrl: nats.url, redisUrl: redis.url, namespace: "canary" },
      {
        POSTHORN_LOG_LEVEL: "trace",
        POSTHORN_OTLP_ENDPOINT: spans.url,
        POSTHORN_TRACE_SAMPLE_RATIO: "1",
        POSTHORN_DEADLINE_DEFAULT_MS: "8000",
        POSTHORN_DEADLINE_MAX_MS: "8000",
        POSTHORN_RECONCILE_AFTER_MS: "1000",
        POSTHORN_RECONCILE_INTERVAL_MS: "500",
        POSTHORN_SCHEDULE_TICK_MS: "100",
        CANARY_WORDS: ["title", "email", "attribute"]
          .map((name) => secrets[name])
          .concat(PHONE)
          .join(" "),
      },
      [join(import.meta.dirname, "refusing-node.ts")],
    ),
  );
  const session = new Http2SessionManager(`http://${posthorn.grpcUrl}`);
  stack.defer(() => session.abort());
  const over = (credential: string, tenantId?: string) =>
    clientsOver(`http://${posthorn.grpcUrl}`, session, credential, tenantId);
  const { tenant } = await over(posthorn.operatorKey).admin.createTenant({ displayName: "Canaries" });
  const operator = over(posthorn.operatorKey, tenant?.id);
  const { secret } = await operator.admin.createApiKey({ displayName: "tests", scopes: [...ALL_SCOPES] });
  const { token } = await operator.admin.createUserToken({ userId: "someone" });
  secrets.apiKey = secret;
  secrets.apiKeyAlone = secret.slice(-20);
  secrets.userToken = token.slice(-30);
  secrets.operatorKey = posthorn.operatorKey;
  authorization = `Bearer ${secret}`;
  clients = over(secret);
  asUser = over(token);
  await asUser.admin.whoAmI({});
}, 120_000);

describe("everything is done with it", () => {
  test("in good times", async () => {
    waiting = await makeWaiting(clients, canary, "someone");
    expect(Object.values(waiting).filter((id) => id === "")).toEqual([]);
    refusals.push(...(await exercise(callsAbout("someone"), "good")));
    await allRefused(posthorn.said);
    await until(
      async () => posthorn.said().some((line) => line.includes("handed over")),
      (taken) => taken,
    );
    errors.push(...(await knock(posthorn.httpUrl, authorization, canary)).slice(0, 4));
    await until(
      () => clients.inbox.getCounts({ userId: "someone" }),
      ({ counts }) => (counts?.total ?? 0) > 1,
    );
    // Closed by callers, they come at the next tick.
    for (const id of [waiting.batch, waiting.digest])
      await until(
        () => clients.batches.getBatch({ id }),
        ({ batch }) => batch?.state === BatchState.CLOSED,
      );
  }, 120_000);

  test("while Postgres refuses every row with a constraint", async () => {
    const sql = postgres(direct.databaseUrl, { max: 1, onnotice: () => undefined });
    const tables = [
      ...["users", "notifications", "inbox", "topics", "types", "preferences", "api_keys", "audit_entries"],
      ...["batches", "escalations", "hand_overs", "timeline", "schedules", "deadlines", "subscriptions", "dedup_keys"],
    ];
    const known = await sql<{ name: string }[]>`select relname as name from pg_class where relkind in ('r', 'p')`;
    const refusing = tables.filter((table) => known.some(({ name }) => name === table));
    expect(refusing).toEqual(tables);
    for (const table of refusing)
      await sql`alter table ${sql(table)} add constraint canary check (tenant_id is null) not valid`;
    const said = await exercise(callsAbout("other"), "bad");
    expect(said.join("\n")).toContain("INTERNAL");
    refusals.push(...said);
    for (const table of refusing) await sql`alter table ${sql(table)} drop constraint canary`;
    await sql.end();
  }, 60_000);

  test.each([
    ["Postgres", () => database],
    ["NATS", () => nats],
    ["Redis", () => redis],
  ])(
    "while %s is cut off in the middle",
    async (_, proxy) => {
      const under = exercise(callsAbout("someone"), "bad");
      // All are under way when this one is answered, if only that the service is busy with them.
      await clients.admin.whoAmI({}).catch(() => undefined);
      await proxy().refuse("close");
      proxy().cut("rst");
      refusals.push(...(await under), ...(await exercise(callsAbout("third"), "bad")));
      await proxy().heal();
      await until(
        () =>
          // What reads and what writes stand on pools of their own, which find it again each by itself.
          Promise.all([clients.users.upsertUser({ user: { id: "back" } }), clients.admin.whoAmI({})]).then(
            () => true,
            () => false,
          ),
        (back) => back,
        30_000,
      );
    },
    120_000,
  );
});

describe("and it is not", () => {
  test("in anything that the process says, at any level", () => {
    expect(posthorn.said().length).toBeGreaterThan(200);
    expect(posthorn.said().filter((line) => line.includes("take a notification")).length).toBeGreaterThan(4);
    const leaking = posthorn.said().filter((line) => foundIn(line, secrets).length > 0);
    expect([...new Set(leaking.map((line) => `${foundIn(line, secrets)}: ${line.slice(0, 600)}`))].slice(0, 8)).toEqual(
      [],
    );
  });

  test("in spans", async () => {
    const spans = await until(
      async () => sink.spans(),
      (bytes) => bytes.includes("posthorn.v1.SendService/Send"),
    );
    expect(foundIn(spans, secrets)).toEqual([]);
  });

  test("in metrics", async () => {
    const metrics = await (await fetch(`${posthorn.httpUrl}/metrics`)).text();
    expect(metrics).toContain("posthorn.v1.SendService/Send");
    expect(foundIn(metrics, secrets)).toEqual([]);
  });

  test("in the files of JetStream", async () => {
    const files = await filesUnder(join(directory, "services/nats/jetstream"));
    expect(files.length).toBeGreaterThan(1000);
    expect(foundIn(files, secrets)).toEqual([]);
  });

  test("in subjects and headers of NATS", () => {
    expect(traffic.heads()).toContain("canary");
    expect(foundIn(traffic.heads(), secrets)).toEqual([]);
  });

  test("in what is queued", () => {
    expect(traffic.queued()).toContain('"ids":[');
    expect(foundIn(traffic.queued(), secrets)).toEqual([]);
  });

  test("in Redis", async () => {
    const content = await redisContent(direct.redisUrl);
    expect(content.length).toBeGreaterThan(50);
    expect(foundIn(content, secrets)).toEqual([]);
  });

  test("in the logs of Postgres, NATS and Redis", async () => {
    for (const server of ["postgres", "nats", "redis"]) {
      const log = await readFile(join(directory, "services", server, "log"));
      expect([server, foundIn(log, secrets)]).toEqual([server, []]);
    }
  });

  test("in what others are told", () => expect(errors.flatMap((error) => foundIn(error, secrets))).toEqual([]));

  test("in what is said to who was refused, nor what the platform is built of", () => {
    const kinds = new Set(refusals.map((text) => text.split(" ", 1)[0]));
    for (const kind of ["Internal", "Unavailable", "InvalidArgument", "NotFound", "FailedPrecondition"])
      expect(kinds).toContain(kind);
    const found = (text: string) =>
      foundIn(text, secrets).filter((name) => !(ECHOED[name] ?? []).some((words) => text.includes(words)));
    const leaking = refusals.filter((text) => found(text).length > 0 || leaksOf(text).length > 0);
    expect([...new Set(leaking.map((text) => `${found(text)} ${leaksOf(text)}: ${text}`))]).toEqual([]);
    const all = refusals.join("\n");
    for (const words of [
      "breaks a rule (own)",
      "content.data.order: ",
      "content.payload: must be a acme.Shipped, not acme.",
    ])
      expect(all).toContain(words);
    for (const words of ["gives a string", "at character "]) expect(all).toContain(`subscription.filter: ${words}`);
  });
});

test("Postgres keeps content and contacts, and of credentials only what cannot be used", async () => {
  const all = Object.values(await postgresContent(direct.databaseUrl)).join("\n");
  const kept = foundIn(all, secrets);
  for (const name of ["title", "body", "email", "attribute", "tag", "payload", "payloadKey", "literal"])
    expect(kept).toContain(name);
  for (const name of ["apiKey", "apiKeyAlone", "userToken", "operatorKey", "issuerSecret", "forgedKey", "forgedToken"])
    expect(kept).not.toContain(name);
});
