import { spawnSync } from "node:child_process";
import { mkdirSync, mkdtempSync, rmSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { timestampFromDate } from "@bufbuild/protobuf/wkt";
import { Code, ConnectError } from "@connectrpc/connect";
import { expect, onTestFinished, test } from "vitest";
import { BadRequestSchema, ErrorInfoSchema } from "#gen/google/rpc/error_details_pb.ts";
import { AdminService, Scope } from "#gen/posthorn/v1/admin_service_pb.ts";
import { BatchKind, BatchService, BatchState } from "#gen/posthorn/v1/batch_service_pb.ts";
import { ErrorReason } from "#gen/posthorn/v1/error_pb.ts";
import { Exemption, Gate, GateAnswer } from "#gen/posthorn/v1/explain_pb.ts";
import { InboxService } from "#gen/posthorn/v1/inbox_service_pb.ts";
import { Channel, Priority, Reason, Status } from "#gen/posthorn/v1/notification_pb.ts";
import {
  type CreateSubscriptionRequest,
  PreferenceLevel,
  PreferencesService,
  type UnsubscribeAllRequest,
} from "#gen/posthorn/v1/preferences_service_pb.ts";
import { ScheduleService, Schedule_State as State } from "#gen/posthorn/v1/schedule_service_pb.ts";
import {
  type ConfirmNotificationRequest,
  type PreviewSendRequest,
  type SendBatchRequest,
  type SendRequest,
  SendService,
} from "#gen/posthorn/v1/send_service_pb.ts";
import { StreamService } from "#gen/posthorn/v1/stream_service_pb.ts";
import { DeliveryMode, type PushPayloadRequest, TypeService } from "#gen/posthorn/v1/type_service_pb.ts";
import { Warning_Code } from "#gen/posthorn/v1/warning_pb.ts";
import { type LocalState, stateFile, writeState } from "#src/cli/state.ts";
import type { World } from "#src/cli/world.ts";
import { shipped, shippedProto } from "../support/descriptors.ts";
import { fakeServer } from "./fake-server.ts";
import { testWorld } from "./world.ts";

const ID = "01938a3e-0000-7000-8000-000000000001";

function world(over: Partial<World> = {}) {
  const made = testWorld(over);
  onTestFinished(() => made[Symbol.dispose]());
  return made;
}

async function serving(...[routes]: Parameters<typeof fakeServer>) {
  const server = await fakeServer(routes);
  onTestFinished(() => server[Symbol.asyncDispose]());
  return server;
}

const local = (server: string): LocalState => ({
  server,
  httpUrl: "http://127.0.0.1:1",
  tenantId: ID,
  apiKey: "local-key",
  operatorKey: "local-operator",
  userId: "ada",
  userToken: "t",
});

test("send says what became of each recipient, and every option reaches the request", async () => {
  let request: SendRequest | undefined;
  const { server } = await serving((router) =>
    router.rpc(SendService.method.send, (received) => {
      request = received;
      return { results: [{ notificationId: ID, userId: "ada", status: Status.DELIVERED }] };
    }),
  );
  const { exitCode, out, err } = await world().run([
    ..."send ada grace --topic news,alerts --role admin -p critical --tag a,b --ttl 1h --at 2026-03-29T09:00Z".split(
      " ",
    ),
    ..."--dedup-key d --dedup-window 10s --collapse-key c --group-key g --sender bob --idempotency-key i --api-key k".split(
      " ",
    ),
    ...["--server", server, "-t", "Hello there", "--data", '{"order": 42}'],
  ]);
  expect({ exitCode, err }).toEqual({ exitCode: 0, err: [] });
  expect(out).toEqual([`${ID}  ada  delivered  `.trimEnd()].map((line) => expect.stringContaining(line)));
  expect(request).toMatchObject({
    to: { userIds: ["ada", "grace"], topics: ["news", "alerts"], roles: ["admin"] },
    content: { title: "Hello there", data: { order: 42 } },
    priority: Priority.CRITICAL,
    tags: ["a", "b"],
    expiry: { case: "ttl", value: { seconds: 3600n } },
    schedule: { case: "scheduleTime" },
    dedupKey: "d",
    dedupWindow: { seconds: 10n },
    collapseKey: "c",
    groupKey: "g",
    senderId: "bob",
    idempotencyKey: "i",
    waitForDecision: { seconds: 5n },
  });
});

test("without --idempotency-key each send gets a new one; --no-wait does not wait, and --no-batch joins nothing", async () => {
  const requests: SendRequest[] = [];
  const { server } = await serving((router) =>
    router.rpc(SendService.method.send, (request) => {
      requests.push(request);
      return { results: [] };
    }),
  );
  const w = world({ env: { POSTHORN_SERVER: server, POSTHORN_API_KEY: "k" } });
  await w.run("send ada -t Hi --no-wait --no-batch");
  await w.run("send ada -t Hi");
  expect(new Set(requests.map(({ idempotencyKey }) => idempotencyKey)).size).toBe(2);
  expect(requests.map(({ waitForDecision }) => waitForDecision?.seconds)).toEqual([undefined, 5n]);
  expect(requests.map(({ batchable }) => batchable)).toEqual([false, undefined]);
});

test("explain shows what was asked in words, for each channel, on the recipient's clock and in UTC", async () => {
  const at = (time: string) => timestampFromDate(new Date(time));
  const passed = (gate: Gate, rule?: object) => ({ gate, answer: GateAnswer.PASSED, ...(rule && { rule }) });
  const quiet = {
    gate: Gate.QUIET_HOURS,
    answer: GateAnswer.HELD,
    reason: Reason.QUIET_HOURS,
    until: at("2026-11-28T07:00:00Z"),
    rule: { level: PreferenceLevel.USER, startTime: "22:00", endTime: "08:00" },
  };
  const unavailable = {
    gate: Gate.CHANNEL_AVAILABLE,
    answer: GateAnswer.SUPPRESSED,
    reason: Reason.CHANNEL_UNAVAILABLE,
  };
  const response = {
    notification: {
      id: ID,
      userId: "ada",
      type: "news",
      priority: Priority.NORMAL,
      status: Status.HELD,
      reason: Reason.QUIET_HOURS,
    },
    timeZone: "Europe/Berlin",
    bypassedBy: "key:k1",
    timeline: [
      { entry: { time: at("2026-11-27T22:10:00Z"), status: Status.ACCEPTED, actor: "key:k1" } },
      {
        entry: {
          time: at("2026-11-27T22:10:00.02Z"),
          status: Status.HELD,
          reason: Reason.QUIET_HOURS,
          actor: "posthorn",
        },
        decision: {
          timeZone: "Europe/Berlin",
          versions: { preferences: 3, type: 1 },
          channels: [
            {
              channel: Channel.IN_APP,
              gates: [
                passed(Gate.CHANNEL_AVAILABLE),
                passed(Gate.MINIMUM_PRIORITY, { level: PreferenceLevel.CATEGORY, minimumPriority: Priority.NORMAL }),
                passed(Gate.SUBSCRIPTIONS, { subscriptionIds: [ID] }),
                passed(Gate.WEEKEND, { enabled: true, exemption: Exemption.CRITICAL }),
                passed(Gate.HOURLY_CAP, {
                  level: PreferenceLevel.BUILT_IN,
                  limit: { window: Reason.HOURLY_CAP, usage: 1, limit: 3, maxPerHour: 4 },
                }),
                passed(Gate.DO_NOT_DISTURB, { level: PreferenceLevel.BUILT_IN, enabled: false }),
                quiet,
                { gate: Gate.RATE_LIMITS, answer: GateAnswer.NOT_ASKED },
              ],
            },
            { channel: Channel.EMAIL, gates: [unavailable, { gate: Gate.QUIET_HOURS, answer: GateAnswer.NOT_ASKED }] },
          ],
        },
      },
    ],
  };
  const { server } = await serving((router) => router.rpc(SendService.method.explainNotification, () => response));
  const w = world({ env: { POSTHORN_SERVER: server, POSTHORN_API_KEY: "k" } });
  const { exitCode, out } = await w.run(`explain ${ID}`);
  expect(exitCode).toBe(0);
  expect(out.join("\n").split("\n")).toEqual(
    [
      `${ID}  ada  news  normal  held (quiet-hours)  `,
      "limits passed by bypass, by key:k1",
      "",
      "Fri 2026-11-27 23:10:00 Europe/Berlin (2026-11-27T22:10:00Z)  accepted, by key:k1",
      "",
      "Fri 2026-11-27 23:10:00 Europe/Berlin (2026-11-27T22:10:00Z)  held (quiet-hours)",
      "  by the user's preferences (revision 3), the tenant's (none), the type (revision 1)",
      "                            inbox                                                             email",
      "  the channel is there      yes                                                               NO: never",
      "  is urgent enough          yes (normal at least, set for the category)                       -",
      `  subscriptions let it through  yes (asked: ${ID})                                            -`,
      "  no free weekend           yes, CRITICAL passes                                              -",
      "  the hourly cap has room   yes (hourly-cap: 1 of 3 used, of 4 an hour)                       -",
      "  no do-not-disturb period  yes (off)                                                         -",
      "  no quiet hours            NO: held until Sat 2026-11-28 08:00 (22:00–08:00, set by the user)  -",
      "  the rate limits have room  -                                                                 -",
    ].map((line) =>
      expect.stringMatching(
        new RegExp(
          `^${line.replaceAll(/[.*+?^${}()|[\]\\]/g, "\\$&").replaceAll(/ {2,}/g, " +")}$`.replace(/ \+\$$/, " *$"),
        ),
      ),
    ),
  );
  const asJson = await w.run(`explain ${ID} --json`);
  expect(JSON.parse(asJson.out[0] ?? "")).toMatchObject({
    timeZone: "Europe/Berlin",
    timeline: [{}, { decision: {} }],
  });
});

test("what-if asks about one Send, with every option, and shows what would happen", async () => {
  let request: PreviewSendRequest | undefined;
  let duplicateOf = "";
  const { server } = await serving((router) =>
    router.rpc(SendService.method.previewSend, (received) => {
      request = received;
      const entry = {
        time: timestampFromDate(new Date("2026-11-27T22:10:00Z")),
        status: Status.ACCEPTED,
        actor: "posthorn",
      };
      if (duplicateOf !== "") return { timeZone: "Asia/Kolkata", duplicateOf };
      const at = (minute: string) => timestampFromDate(new Date(`2026-11-27T22:${minute}:00Z`));
      const batch = { id: ID, kind: BatchKind.BATCH, size: 2, maxSize: 3, flushTime: at("30") };
      return {
        timeZone: "Asia/Kolkata",
        timeline: [{ entry }],
        limitsUnknown: true,
        batch: { batch, channels: [Channel.IN_APP, Channel.EMAIL], latestFlushTime: at("50") },
        handOvers: [{ channel: Channel.EMAIL, time: at("10") }],
        ifUnanswered: [{ entry: { time: at("20"), channel: Channel.SMS, step: 1, actor: "posthorn" } }],
      };
    }),
  );
  const w = world({ env: { POSTHORN_SERVER: server, POSTHORN_API_KEY: "k" } });
  const options = [
    ..."what-if ada --type news --at 2026-11-27T22:10Z -p high --channel email,sms --tag a --sender bob --ttl 1h".split(
      " ",
    ),
    ..."--dedup-key d --schedule-local 2026-11-28T09:00 --no-batch --escalate sms:5m --confirm --bypass-rate-limit --data".split(
      " ",
    ),
    '{"n":1}',
  ];
  const { exitCode, out } = await w.run(options);
  expect({ exitCode, out }).toEqual({
    exitCode: 0,
    out: [
      "Sat 2026-11-28 03:40:00 Asia/Kolkata (2026-11-27T22:10:00Z)  accepted",
      "",
      `joins batch ${ID} of what is for inbox and email: number 2 of up to 3; closes Sat 2026-11-28 04:00, Sat 2026-11-28 04:20 at the latest`,
      "",
      "handed over to email at Sat 2026-11-28 03:40",
      "",
      "if nobody answers",
      "",
      "Sat 2026-11-28 03:50:00 Asia/Kolkata (2026-11-27T22:20:00Z)  handed over, sms, step 1 of its escalation",
      "",
      "Redis was away: what the limits and the hourly cap have counted is not known",
    ],
  });
  expect(request).toMatchObject({
    request: {
      to: { userIds: ["ada"] },
      type: "news",
      content: { title: "What if", data: { n: 1 } },
      priority: Priority.HIGH,
      channels: [Channel.EMAIL, Channel.SMS],
      tags: ["a"],
      senderId: "bob",
      expiry: { case: "ttl", value: { seconds: 3600n } },
      dedupKey: "d",
      schedule: { case: "localScheduleTime", value: "2026-11-28T09:00" },
      batchable: false,
      escalation: { steps: [{ channel: Channel.SMS, after: { seconds: 300n } }], confirmationRequired: true },
      bypassRateLimit: true,
    },
    time: timestampFromDate(new Date("2026-11-27T22:10:00Z")),
  });
  const asJson = await w.run("what-if ada --json");
  expect(JSON.parse(asJson.out[0] ?? "")).toMatchObject({ timeZone: "Asia/Kolkata" });
  duplicateOf = ID;
  expect((await w.run("what-if ada")).out).toEqual([`not sent: ${ID} stands for it (dedup key)`]);
});

test("send --escalate names channels and their times, --confirm asks for a confirmation; without either, nothing", async () => {
  const requests: SendRequest[] = [];
  const { server } = await serving((router) =>
    router.rpc(SendService.method.send, (request) => {
      requests.push(request);
      return { results: [] };
    }),
  );
  const w = world({ env: { POSTHORN_SERVER: server, POSTHORN_API_KEY: "k" } });
  await w.run("send ada -t Hi --escalate email:2m,sms:5m --escalate chat:90s --confirm");
  await w.run("send ada -t Hi --confirm");
  await w.run("send ada -t Hi --escalate push:10s");
  await w.run("send ada -t Hi");
  expect(requests.map(({ escalation }) => escalation)).toMatchObject([
    {
      steps: [
        { channel: Channel.EMAIL, after: { seconds: 120n } },
        { channel: Channel.SMS, after: { seconds: 300n } },
        { channel: Channel.CHAT, after: { seconds: 90n } },
      ],
      confirmationRequired: true,
    },
    { steps: [], confirmationRequired: true },
    { steps: [{ channel: Channel.PUSH, after: { seconds: 10n } }], confirmationRequired: false },
    undefined,
  ]);
});

test("confirm says when it was confirmed and who has it, and gives the reason to the audit log", async () => {
  let request: ConfirmNotificationRequest | undefined;
  const { server } = await serving((router) =>
    router.rpc(SendService.method.confirmNotification, (received) => {
      request = received;
      const confirmTime = timestampFromDate(new Date("2026-03-29T09:00:00Z"));
      return { notification: { id: ID, userId: "ada\u001b[31m", status: Status.READ, confirmTime } };
    }),
  );
  const w = world({ env: { POSTHORN_SERVER: server, POSTHORN_API_KEY: "k" } });
  const plain = await w.run(["confirm", ID, "--reason", "answered by phone"]);
  expect(plain).toEqual({
    exitCode: 0,
    out: [expect.stringMatching(/^confirmed at .*2026.*; ada.* has it as read$/)],
    err: [],
  });
  expect(plain.out.join()).not.toContain("\u001b");
  expect(request).toMatchObject({ id: ID, reason: "answered by phone" });
  const json = await w.run(["confirm", ID, "--reason", "x", "--json"]);
  expect(JSON.parse(json.out[0] ?? "")).toMatchObject({ id: ID, confirmTime: "2026-03-29T09:00:00Z" });
});

test("confirm without a reason is not sent; one that has not come is refused", async () => {
  let times = 0;
  const { server } = await serving((router) =>
    router.rpc(SendService.method.confirmNotification, () => {
      times++;
      throw new ConnectError("it has not reached its recipient", Code.FailedPrecondition, undefined, [
        { desc: ErrorInfoSchema, value: { reason: "NOTIFICATION_NOT_DELIVERED", domain: "posthorn" } },
      ]);
    }),
  );
  const w = world({ env: { POSTHORN_SERVER: server, POSTHORN_API_KEY: "k" } });
  expect(await w.run(["confirm", ID])).toMatchObject({ exitCode: 2, out: [] });
  expect(times).toBe(0);
  const refused = await w.run(["confirm", ID, "--reason", "x"]);
  expect(refused).toMatchObject({ exitCode: 1, out: [] });
  expect(refused.err.join("\n")).toContain("NOTIFICATION_NOT_DELIVERED");
});

test("a refusal names the field, the option that sets it and the reason, with exit code 1", async () => {
  const { server } = await serving((router) =>
    router.rpc(SendService.method.send, () => {
      throw new ConnectError("the request breaks 3 rules", Code.InvalidArgument, undefined, [
        { desc: ErrorInfoSchema, value: { reason: "INVALID_REQUEST", domain: "posthorn" } },
        {
          desc: BadRequestSchema,
          value: {
            fieldViolations: [
              { field: "content.title", description: "must be at least 1 character" },
              { field: "tags[2]", description: "must not hold spaces\u001b[31m" },
              { field: "escalation.steps[1].after", description: "must be at least 10s" },
            ],
          },
        },
      ]);
    }),
  );
  const w = world({ env: { POSTHORN_SERVER: server, POSTHORN_API_KEY: "k" } });
  const plain = await w.run("send ada -t x");
  expect(plain).toEqual({
    exitCode: 1,
    out: [],
    err: [
      "error: the request breaks 3 rules [INVALID_REQUEST]",
      "  content.title: must be at least 1 character (set by --title)",
      "  tags[2]: must not hold spaces (set by --tag)",
      "  escalation.steps[1].after: must be at least 10s (set by --escalate)",
    ],
  });
  const json = await w.run("send ada -t x --json");
  expect(json.out).toEqual([]);
  expect(JSON.parse(json.err.join("\n"))).toMatchObject({
    error: {
      code: "INVALID_ARGUMENT",
      reason: "INVALID_REQUEST",
      fields: [{ field: "content.title" }, { field: "tags[2]" }, { field: "escalation.steps[1].after" }],
    },
  });
});

test("nobody there is exit code 3, and says what to do", async () => {
  const gone = await fakeServer(() => undefined);
  await gone[Symbol.asyncDispose]();
  const { exitCode, err } = await world().run(`whoami --api-key k --server ${gone.server}`);
  expect(exitCode).toBe(3);
  expect(err.join("\n")).toContain(`Nobody answers at ${gone.server}`);
  expect(err.join("\n")).toContain("npm start");
});

test.each([
  ["an unknown command", "sned ada"],
  ["an unknown option", "send ada --tilte x"],
  ["an unreadable duration", "send ada -t x --ttl soon --api-key k"],
  ["an unknown channel to escalate to", "send ada -t x --escalate owl:5m --api-key k"],
  ["an escalation without a time", "send ada -t x --escalate email --api-key k"],
  ["nobody to send to", "send -t x --api-key k"],
  ["nothing to send", "send ada --api-key k"],
  ["no credential", "whoami"],
  ["no sub-command", "key"],
  ["no command at all", ""],
])("%s is exit code 2 with a hint on standard error", async (_, command) => {
  const { exitCode, out, err } = await world().run(command === "" ? [] : command);
  expect({ exitCode, out }).toEqual({ exitCode: 2, out: [] });
  expect(err.join("\n").trim()).not.toBe("");
});

test("every command explains itself with an example", async () => {
  for (const command of ["serve", "migrate", "send", "tail", "inbox", "token", "tenant", "key", "types", "whoami"]) {
    const { exitCode, out } = await world().run(`${command} --help`);
    expect(exitCode, command).toBe(0);
    expect(out.join("\n"), command).toMatch(/Examples?:\n {2}\$ .*posthorn/);
  }
  expect((await world().run("serve --help")).out.join("\n")).toContain("POSTHORN_DATABASE_URL");
});

test("what npm start wrote down is used, and only for the server it belongs to", async () => {
  const routes: Parameters<typeof fakeServer>[0] = (router) =>
    router.rpc(AdminService.method.whoAmI, () => ({ tenantId: ID })).rpc(AdminService.method.listTenants, () => ({}));
  const [ours, other] = [await serving(routes), await serving(routes)];
  const w = world();
  writeState(w.dataDir, local(ours.server));
  expect(statSync(stateFile(w.dataDir)).mode & 0o777).toBe(0o600);

  expect((await w.run("whoami")).exitCode).toBe(0);
  expect((await w.run("tenant list")).exitCode).toBe(0);
  expect(ours.authorizations).toEqual(["Bearer local-key", "Bearer local-operator"]);

  const elsewhere = await w.run(`whoami --server ${other.server}`);
  expect(elsewhere.exitCode).toBe(2);
  expect(elsewhere.err.join("\n")).toContain("No API key");
  expect(other.authorizations).toEqual([]);
});

test("--tenant makes it the operator's call in that tenant", async () => {
  let tenant: string | null = "";
  const { server, authorizations } = await serving((router) =>
    router.rpc(AdminService.method.createApiKey, (request, context) => {
      tenant = context.requestHeader.get("posthorn-tenant");
      return { apiKey: { id: ID, scopes: request.scopes }, secret: "phk_secret" };
    }),
  );
  const w = world({ env: { POSTHORN_SERVER: server, POSTHORN_API_KEY: "key", POSTHORN_OPERATOR_KEYS: "one, two" } });
  const { out } = await w.run(`key create backend --scope all --tenant ${ID}`);
  expect({ tenant, authorizations, out }).toEqual({ tenant: ID, authorizations: ["Bearer one"], out: ["phk_secret"] });
});

test("key create takes scopes as words and refuses others", async () => {
  let scopes: Scope[] = [];
  const { server } = await serving((router) =>
    router.rpc(AdminService.method.createApiKey, (request) => {
      scopes = request.scopes as Scope[];
      return { secret: "s", apiKey: { id: ID } };
    }),
  );
  const w = world({ env: { POSTHORN_SERVER: server, POSTHORN_API_KEY: "k" } });
  expect((await w.run("key create a --scope send,inbox --scope send")).exitCode).toBe(0);
  expect(scopes).toEqual([Scope.SEND, Scope.INBOX]);
  const refused = await w.run("key create a --scope sned");
  expect(refused.exitCode).toBe(2);
  expect(refused.err.join("\n")).toContain("notifications-read");
});

test("send --from sends a file in calls of 500 and tells the refused lines", async () => {
  const calls: SendBatchRequest[] = [];
  const { server } = await serving((router) =>
    router.rpc(SendService.method.sendBatch, (request) => {
      calls.push(request);
      return {
        results: request.items.map((item) =>
          item.content?.title === ""
            ? {
                result: {
                  case: "error" as const,
                  value: { code: 3, reason: ErrorReason.INVALID_REQUEST, message: "no title" },
                },
              }
            : { result: { case: "response" as const, value: { results: [{ notificationId: ID }] } } },
        ),
      };
    }),
  );
  const line = (title: string) => JSON.stringify({ to: { userIds: ["ada"] }, content: { title } });
  const text = Array.from({ length: 700 }, (_, i) => line(i === 600 ? "" : `n${i}`)).join("\n");
  const stdin = (async function* () {
    yield text;
  })();
  const w = world({ stdin, env: { POSTHORN_SERVER: server, POSTHORN_API_KEY: "k" } });
  const { exitCode, out, err } = await w.run("send --from -");
  expect(calls.map(({ items }) => items.length)).toEqual([500, 200]);
  expect({ exitCode, out }).toEqual({ exitCode: 1, out: ["699 notifications accepted, 1 line refused"] });
  expect(err[0]).toBe("line 601: no title [INVALID_REQUEST]");
});

test("send --from keeps each call below what a server accepts, in bytes and in users", async () => {
  const calls: number[] = [];
  const { server } = await serving((router) =>
    router.rpc(SendService.method.sendBatch, ({ items }) => {
      calls.push(items.length);
      return {};
    }),
  );
  const w = world({ env: { POSTHORN_SERVER: server, POSTHORN_API_KEY: "k" } });
  const file = join(w.dataDir, "events.jsonl");
  const sendFile = async (items: object[]) => {
    writeFileSync(file, items.map((item) => JSON.stringify(item)).join("\n"));
    calls.length = 0;
    expect((await w.run(`send --from ${file}`)).exitCode).toBe(0);
    return calls;
  };
  const large = { to: { userIds: ["ada"] }, content: { title: "x", body: "y".repeat(2 ** 20) } };
  expect(await sendFile([large, large, large, large])).toEqual([2, 2]);
  const many = { to: { userIds: Array.from({ length: 1_000 }, (_, i) => `u${i}`) }, content: { title: "x" } };
  expect(await sendFile(Array.from({ length: 25 }, () => many))).toEqual([10, 10, 5]);
});

test("a line that is no request stops before anything is sent", async () => {
  const w = world({ env: { POSTHORN_API_KEY: "k" } });
  const file = join(w.dataDir, "events.jsonl");
  writeFileSync(file, '{"to": {"userIds": ["ada"]}}\n\n{"too": 1}\n');
  const { exitCode, err } = await w.run(`send --from ${file}`);
  expect(exitCode).toBe(2);
  expect(err.join("\n")).toContain(`${file}, line 3`);
});

test("inbox lists as JSON lines, without steering the terminal otherwise", async () => {
  const entry = { notificationId: ID, sequence: 1n, content: { title: "a\u001b[2Jb\nc" } };
  const { server } = await serving((router) =>
    router.rpc(InboxService.method.listEntries, () => ({ entries: [entry], counts: { unread: 1, total: 1 } })),
  );
  const w = world({ env: { POSTHORN_SERVER: server, POSTHORN_API_KEY: "k" } });
  const plain = await w.run("inbox --user ada");
  expect(plain.out).toHaveLength(1);
  expect(plain.out[0]).toContain("ab c");
  expect(plain.err).toEqual(["1 unread of 1, 0 unseen"]);
  const json = await w.run("inbox --user ada --json");
  expect(json.out.map((line) => JSON.parse(line))).toMatchObject([{ notificationId: ID, sequence: "1", seen: false }]);
  expect(json.err).toEqual([]);
});

test("inbox read takes ids, or all at once", async () => {
  const calls: string[] = [];
  const { server } = await serving((router) =>
    router
      .rpc(InboxService.method.markRead, ({ notificationIds }) => {
        calls.push(notificationIds.join());
        return { changed: notificationIds.length, counts: {} };
      })
      .rpc(InboxService.method.markAllRead, () => {
        calls.push("all");
        return { changed: 7, counts: {} };
      }),
  );
  const w = world({ env: { POSTHORN_SERVER: server, POSTHORN_API_KEY: "k" } });
  expect((await w.run(`inbox read ${ID} --user ada`)).out).toEqual(["1 entry changed; 0 unread of 0, 0 unseen"]);
  expect(JSON.parse((await w.run("inbox read all --user ada --json")).out[0] ?? "")).toMatchObject({ changed: 7 });
  expect(calls).toEqual([ID, "all"]);
});

test("batches list, get and close show how they stand", async () => {
  const asked: unknown[] = [];
  const batch = {
    id: ID,
    kind: BatchKind.DIGEST,
    state: BatchState.CLOSED,
    userId: "ada",
    type: "digest",
    size: 3,
    delivered: 3,
  };
  const open = {
    id: ID,
    kind: BatchKind.BATCH,
    state: BatchState.OPEN,
    userId: "ada",
    type: "poll",
    size: 2,
    maxSize: 5,
  };
  const { server } = await serving((router) =>
    router
      .rpc(BatchService.method.listBatches, ({ userId, kind, state, pageSize }) => {
        asked.push([userId, kind, state, pageSize]);
        return { batches: [batch, open, { ...open, state: BatchState.FULL, size: 5 }] };
      })
      .rpc(BatchService.method.getBatch, () => ({ batch }))
      .rpc(BatchService.method.closeBatch, ({ id, reason }) => {
        asked.push([id, reason]);
        return { batch: { ...open, state: BatchState.FULL } };
      }),
  );
  const w = world({ env: { POSTHORN_SERVER: server, POSTHORN_API_KEY: "k" } });
  const { out } = await w.run("batches list --user ada --kind digest --state open --limit 7");
  expect(out[2]).toMatch(/batch +full +ada +poll +5 of 5/);
  expect(out[0]).toMatch(/digest +closed +ada +digest +3 .*3 delivered, 0 not/);
  expect(out[1]).toMatch(/batch +open +ada +poll +2 of 5/);
  expect(asked).toEqual([["ada", BatchKind.DIGEST, BatchState.OPEN, 7]]);
  expect((await w.run(["batches", "close", ID, "--reason", "release tonight"])).out[0]).toMatch(
    /batch +closing +ada +poll +2 of 5/,
  );
  expect(asked[1]).toEqual([ID, "release tonight"]);
  expect(JSON.parse((await w.run(`batches get ${ID} --json`)).out[0] ?? "")).toMatchObject({ id: ID, size: 3 });
});

test("types load reads presets and files", async () => {
  const seen: string[] = [];
  const { server } = await serving((router) =>
    router
      .rpc(TypeService.method.loadPreset, () => ({ types: [{ key: "job_match" }], created: 1 }))
      .rpc(TypeService.method.updateType, ({ type, allowMissing }) => {
        seen.push(`${type?.key} ${allowMissing}`);
        return type === undefined ? {} : { type };
      }),
  );
  const w = world({ env: { POSTHORN_SERVER: server, POSTHORN_API_KEY: "k" } });
  expect((await w.run("types load jobs")).err).toEqual(["1 type created, 0 were there"]);
  mkdirSync(w.dataDir, { recursive: true });
  const file = join(w.dataDir, "types.json");
  writeFileSync(file, '[{"key": "invoice", "defaultTtl": "3600s"}, {"key": "receipt"}]');
  expect((await w.run(`types load ${file} --json`)).out.map((line) => JSON.parse(line).key)).toEqual([
    "invoice",
    "receipt",
  ]);
  expect(seen).toEqual(["invoice true", "receipt true"]);
  expect((await w.run("types load ./nowhere.json")).exitCode).toBe(2);
});

test("what is deprecated is listed as that, and whoever sends it is warned once", async () => {
  const sunsetTime = timestampFromDate(new Date("2027-01-01T00:00:00Z"));
  const warning = { code: Warning_Code.TYPE_DEPRECATED, type: "sent", replacement: "shipped", sunsetTime };
  const asked: (boolean | undefined)[] = [];
  const { server } = await serving((router) =>
    router
      .rpc(TypeService.method.listTypes, ({ deprecated }) => {
        asked.push(deprecated);
        return {
          types: [
            { key: "sent", deprecation: { replacement: "shipped", sunsetTime } },
            { key: "shipped", displayName: "Shipped", deliveryMode: DeliveryMode.AT_MOST_ONCE },
          ],
        };
      })
      .rpc(SendService.method.send, () => ({ warnings: [warning] }))
      .rpc(SendService.method.sendBatch, ({ items }) => ({
        results: items.map(() => ({ result: { case: "response" as const, value: { warnings: [warning] } } })),
      })),
  );
  const w = world({ env: { POSTHORN_SERVER: server, POSTHORN_API_KEY: "k" } });
  const told = "deprecated, refused from 2027-01-01T00:00:00Z on; send shipped instead";
  const listed = (await w.run("types list")).out;
  expect(listed[0]).toMatch(new RegExp(`^sent .* ${told}$`));
  expect(listed[1]).toMatch(/at most once +Shipped$/);
  await w.run("types list --deprecated");
  await w.run("types list --no-deprecated");
  expect(asked).toEqual([undefined, true, false]);
  const err = [`warning: the type sent is ${told}`];
  expect(await w.run(["send", "ada", "-t", "Hello"])).toMatchObject({ exitCode: 0, err });
  mkdirSync(w.dataDir, { recursive: true });
  const file = join(w.dataDir, "many.jsonl");
  writeFileSync(file, '{"to": {"userIds": ["ada"]}}\n'.repeat(3));
  expect(await w.run(`send --from ${file}`)).toMatchObject({ exitCode: 0, err });
});

test("types diff tells what a file would change and changes nothing; history who changed what", async () => {
  const asked: (boolean | undefined)[] = [];
  const changes = [
    { path: "display_name", before: '"Invoice"', after: '"Your \u001b[31minvoice"' },
    { path: "batching", before: "", after: '{"batchable":true}' },
  ];
  const { server } = await serving((router) =>
    router
      .rpc(TypeService.method.updateType, ({ type, validateOnly }) => {
        asked.push(validateOnly);
        return {
          ...(type === undefined ? {} : { type }),
          created: type?.key === "receipt",
          changes: type?.key === "invoice" ? changes : [],
        };
      })
      .rpc(TypeService.method.listTypeRevisions, ({ key, pageToken }) =>
        pageToken === ""
          ? { revisions: [{ type: { key, revision: 2 }, actor: "key:7", changes }], nextPageToken: "next" }
          : { revisions: [{ type: { key, revision: 1 } }] },
      ),
  );
  const w = world({ env: { POSTHORN_SERVER: server, POSTHORN_API_KEY: "k" } });
  mkdirSync(w.dataDir, { recursive: true });
  const file = join(w.dataDir, "types.json");
  writeFileSync(file, '[{"key": "invoice"}, {"key": "receipt"}, {"key": "news"}]');
  const lines = ['    display_name  "Invoice" → "Your invoice"', '    batching      (not set) → {"batchable":true}'];
  const told = await w.run(`types diff ${file}`);
  expect(told).toMatchObject({ exitCode: 0, out: ["~ invoice", ...lines, "+ receipt"], err: ["2 types would change"] });
  expect(asked).toEqual([true, true, true]);
  expect(await w.run(`types diff ${file} --exit-code`)).toMatchObject({ exitCode: 1 });
  writeFileSync(file, '[{"key": "news"}]');
  expect(await w.run(`types diff ${file} --exit-code`)).toMatchObject({ exitCode: 0, err: ["nothing would change"] });
  expect((await w.run(`types diff ${file} --json`)).out.map((line) => JSON.parse(line).type.key)).toEqual(["news"]);
  expect((await w.run("types history invoice")).out).toEqual(["2  -  key:7", ...lines, "1  -  before this was kept"]);
});

test("types push sends descriptors without their comments; types show tells fields and versions", async () => {
  const set = shipped(
    "string order = 1; // Its number.\n repeated string parcels = 2; map<string, int32> weights = 3;",
  );
  const pushed: PushPayloadRequest[] = [];
  const contract = { version: 2, message: "acme.Shipped", creator: "key:1" };
  const { server } = await serving((router) =>
    router
      .rpc(TypeService.method.pushPayload, (request) => {
        pushed.push(request);
        return { contract, created: true };
      })
      .rpc(TypeService.method.getType, ({ key }) => ({
        type: {
          key,
          revision: 3,
          deprecation: { note: "no \u001b[31mparcels" },
          payloadVersion: key === "order" ? 2 : 0,
        },
        lastAcceptHour: timestampFromDate(new Date("2026-11-28T01:00:00Z")),
      }))
      .rpc(TypeService.method.getPayload, () => ({ contract, descriptorSet: set }))
      .rpc(TypeService.method.listPayloads, () => ({ contracts: [contract, { ...contract, version: 1 }] })),
  );
  const w = world({ env: { POSTHORN_SERVER: server, POSTHORN_API_KEY: "k" } });
  mkdirSync(w.dataDir, { recursive: true });
  const file = join(w.dataDir, "set.binpb");
  writeFileSync(file, set);
  const push = (more = "") => w.run(`types push order --descriptor-set ${file} --message acme.Shipped ${more}`.trim());
  expect((await push("--if-version 1")).out).toEqual(["order: acme.Shipped is now its payload contract, version 2"]);
  expect(pushed[0]).toMatchObject({ type: "order", message: "acme.Shipped", version: 1 });
  expect(pushed[0]?.descriptorSet.byteLength).toBeLessThan(set.byteLength);
  expect(Buffer.from(pushed[0]?.descriptorSet ?? []).includes("Its number")).toBe(false);
  expect(Buffer.from(set).includes("Its number")).toBe(true);
  const about = ["deprecated", "  no parcels", "last accepted in the hour from 2026-11-28T01:00:00Z on"];
  expect((await w.run("types show plain")).out.slice(1)).toEqual(about);
  const whole = (await w.run("types show order")).out;
  expect(whole.slice(1, 5)).toEqual([...about, ""]);
  const shown = whole.slice(5);
  expect(shown.slice(0, 4)).toEqual([
    "acme.Shipped, version 2",
    "  1  order    string",
    "  2  parcels  string …",
    expect.stringMatching(/^ {2}3 {2}weights {2}map of /),
  ]);
  expect(shown.slice(5).map((line) => line[0])).toEqual(["2", "1"]);
  writeFileSync(file, "none");
  expect((await push()).exitCode).toBe(2);
});

test("types check tells breaks, as JSON and as annotations at their lines too, and ends with 1", async () => {
  const set = shipped("  string order = 1;\n  bytes parcels = 2;");
  const breaks = [
    {
      rule: "FIELD_SAME_TYPE",
      path: "acme.Shipped.parcels",
      description: "was int32\n100%",
      file: "acme/shipped.proto",
    },
    { rule: "FIELD_NO_DELETE", path: "acme.Shipped.gone", description: "is gone", file: "acme/shipped.proto" },
    { rule: "PAYLOAD_WAITING", path: `notification:${ID}`, description: "order: is short", file: "" },
  ];
  let found: object = { breaks, version: 3, reach: { notifications: 2, batched: 1 } };
  const { server } = await serving((router) => router.rpc(TypeService.method.checkPayload, () => found));
  const w = world({ env: { POSTHORN_SERVER: server, POSTHORN_API_KEY: "k" } });
  mkdirSync(w.dataDir, { recursive: true });
  const file = join(w.dataDir, "set.binpb");
  writeFileSync(file, set);
  const check = (more = "") =>
    w.run(`types check order --descriptor-set ${file} --message acme.Shipped ${more}`.trim());
  const said = await check("--annotations github");
  expect(said.exitCode).toBe(1);
  expect(said.out).toEqual([
    "acme.Shipped.parcels: was int32 100% (FIELD_SAME_TYPE)",
    "acme.Shipped.gone: is gone (FIELD_NO_DELETE)",
    `notification:${ID}: order: is short (PAYLOAD_WAITING)`,
  ]);
  const lineOf = (text: string) =>
    shippedProto("  string order = 1;\n  bytes parcels = 2;")
      .split("\n")
      .findIndex((line) => line.includes(text)) + 1;
  expect(said.err).toEqual([
    `::error file=acme/shipped.proto,line=${lineOf("bytes parcels")},title=FIELD_SAME_TYPE::acme.Shipped.parcels: was int32%0A100%25`,
    `::error file=acme/shipped.proto,line=${lineOf("message Shipped")},title=FIELD_NO_DELETE::acme.Shipped.gone: is gone`,
    `::error title=PAYLOAD_WAITING::notification:${ID}: order: is short`,
    "order: 3 breaks against version 3; 3 payloads that wait looked at",
  ]);
  const json = await check("--json");
  expect([json.exitCode, json.err]).toEqual([1, []]);
  expect(JSON.parse(json.out[0] ?? "")).toMatchObject({ breaks, version: 3 });
  found = { version: 3, reach: { notifications: 1, capped: true } };
  const good = await check();
  expect([good.exitCode, good.out]).toEqual([0, []]);
  expect(good.err).toEqual(["order: 0 breaks against version 3; 1 payload that waits looked at, not all"]);
  found = { version: 3, unchanged: true };
  expect((await check()).err).toEqual(["order: nothing to push, it is version 3"]);
});

test("types codegen writes a sender that the compiler checks payloads by", async () => {
  const set = shipped(
    `string order_id = 1; int64 cents = 2; repeated Item items = 3; map<string, Colour> colours = 4;
     google.protobuf.Timestamp at = 5; bytes label = 6; Item.Part part = 7; google.protobuf.Struct more = 8;
     oneof to { string street = 9; google.protobuf.StringValue shop = 10; }`,
    {
      more: `message Item { string sku = 1; Item inner = 2; message Part { double weight = 1 [json_name = "the weight"]; } }
        enum Colour { COLOUR_UNSPECIFIED = 0; COLOUR_RED = 1; }`,
    },
  );
  const contract = { version: 2, message: "acme.Shipped" };
  const { server } = await serving((router) =>
    router.rpc(TypeService.method.getPayload, () => ({ contract, descriptorSet: set })),
  );
  const w = world({ env: { POSTHORN_SERVER: server, POSTHORN_API_KEY: "k" } });
  // Within the checkout, whose packages and settings it is compiled by.
  const root = join(import.meta.dirname, "../..");
  const dir = mkdtempSync(join(root, ".cache/codegen-"));
  onTestFinished(() => rmSync(dir, { recursive: true, force: true }));
  const out = join(dir, "send-shipped.ts");
  expect((await w.run(["types", "codegen", "order-shipped", "--out", out])).out).toEqual([
    `${out}: sendShipped, for version 2`,
  ]);
  const use = (payload: string) => `import type { Client } from "@connectrpc/connect";
    import type { SendService } from "#gen/posthorn/v1/send_service_pb.ts";
    import { sendShipped } from "./send-shipped.ts";
    export const send = (client: Client<typeof SendService>) =>
      sendShipped(client, { userIds: ["ada"] }, ${payload}, { title: "t" }, { idempotencyKey: "k" });`;
  writeFileSync(join(dir, "tsconfig.json"), '{"extends": "../../tsconfig.json", "include": ["*.ts"]}');
  const compiles = (payload: string) => {
    writeFileSync(join(dir, "use.ts"), use(payload));
    const { status, stdout } = spawnSync(join(root, "node_modules/.bin/tsc"), [
      "--noEmit",
      "--incremental",
      "false",
      "-p",
      dir,
    ]);
    return status === 0 ? "" : String(stdout);
  };
  const good = `{ orderId: "A-17", cents: "12", items: [{ sku: "s", inner: {} }], colours: { a: "COLOUR_RED" },
    at: "2026-01-01T00:00:00Z", label: "AA==", part: { "the weight": 2 }, more: { any: [1] }, shop: "x" }`;
  expect(compiles(good)).toBe("");
  expect(compiles('{ orderId: "A-17", parcels: 2 }')).toContain("parcels");
  expect(compiles('{ colours: { a: "COLOUR_GREEN" } }')).toContain("COLOUR_GREEN");
}, 60_000);

test("tail resumes after a cut from the last cursor and prints each notification once", async () => {
  const cursors: string[] = [];
  const server = await serving((router) =>
    router.rpc(StreamService.method.subscribe, async function* ({ cursor, userId }) {
      cursors.push(`${userId}:${cursor}`);
      const from = Number(cursor.slice(1));
      yield { event: { case: "hello" as const, value: { deviceId: "d", heartbeatInterval: { seconds: 20n } } } };
      yield { event: { case: "caughtUp" as const, value: { cursor: `c${from}` } } };
      for (const n of [from + 1, from + 2]) {
        const value = { entry: { sequence: BigInt(n), content: { title: `n${n}` } }, cursor: `c${n}` };
        yield { event: { case: "notification" as const, value } };
      }
      setTimeout(server.cutAll, 20);
      await new Promise(() => undefined);
    }),
  );
  const w = world();
  writeState(w.dataDir, local(server.server));
  const { exitCode, out, err } = await w.run("tail --count 3 --json");
  expect(exitCode).toBe(0);
  const titles = out.map((line) => JSON.parse(line).notification?.entry.content.title).filter(Boolean);
  expect(titles).toEqual(["n1", "n2", "n3"]);
  expect(cursors).toEqual(["ada:", "ada:c2"]);
  expect(err.filter((line) => line.includes("again in"))).toHaveLength(1);
});

test("tail ends with 0 on Ctrl-C and tells where to go on", async () => {
  const { server } = await serving((router) =>
    router.rpc(StreamService.method.subscribe, async function* () {
      yield { event: { case: "caughtUp" as const, value: { cursor: "here" } } };
      await new Promise(() => undefined);
    }),
  );
  const stop = new AbortController();
  const w = world({ env: { POSTHORN_SERVER: server, POSTHORN_API_KEY: "k" }, out: () => stop.abort() });
  const { exitCode, err } = await w.run("tail --user ada", stop.signal);
  expect({ exitCode, err }).toEqual({ exitCode: 0, err: ["to go on from here: --cursor here"] });
});

test("a state file that was cut short is no state", async () => {
  const w = world();
  writeFileSync(stateFile(w.dataDir), '{"server": "127.0');
  expect((await w.run("whoami")).exitCode).toBe(2);
});

test("schedules are made from words, listed, paused and deleted", async () => {
  const calls: unknown[] = [];
  const schedule = {
    key: "standup",
    state: State.ACTIVE,
    recurrence: "FREQ=DAILY",
    nextOccurrences: [{ localTime: "2026-01-01T09:20:00" }],
  };
  const { server } = await serving((router) =>
    router
      .rpc(ScheduleService.method.createSchedule, ({ schedule: asked }) => {
        calls.push([
          asked?.key,
          asked?.request?.to?.userIds,
          asked?.request?.to?.topics,
          asked?.localStartTime,
          asked?.timeZone,
        ]);
        return { schedule };
      })
      .rpc(ScheduleService.method.listSchedules, () => ({ schedules: [schedule] }))
      .rpc(ScheduleService.method.pauseSchedule, ({ key }) => {
        calls.push(`pause ${key}`);
        return { schedule: { ...schedule, state: State.PAUSED } };
      })
      .rpc(ScheduleService.method.deleteSchedule, ({ key, cancelWaiting }) => {
        calls.push(`delete ${key}${cancelWaiting ? " and cancel" : ""}`);
        return { cancelled: cancelWaiting ? 2 : 0 };
      }),
  );
  const w = world({ env: { POSTHORN_SERVER: server, POSTHORN_API_KEY: "k" } });
  const made = await w.run(
    "schedules create standup ann --topic team --rule FREQ=DAILY --start 2026-01-01T09:20 --title Hi",
  );
  expect(made.exitCode).toBe(0);
  expect(made.err.join()).toContain("2026-01-01T09:20:00");
  expect((await w.run("schedules list")).out.join()).toContain("each recipient's zone");
  expect((await w.run("schedules pause standup")).out.join()).toContain("paused");
  expect((await w.run("schedules delete standup")).exitCode).toBe(0);
  expect((await w.run("schedules delete standup --cancel-waiting")).err.join()).toContain("2 notifications cancelled");
  expect(calls).toEqual([
    ["standup", ["ann"], ["team"], "2026-01-01T09:20", ""],
    "pause standup",
    "delete standup",
    "delete standup and cancel",
  ]);
  const nobody = await w.run("schedules create standup --rule FREQ=DAILY --start 2026-01-01T09:20 --title Hi");
  expect(nobody).toMatchObject({ exitCode: 2 });
});

test("deadlines are set with what reminds of them, and deleted", async () => {
  const offsets: unknown[] = [];
  const { server } = await serving((router) =>
    router
      .rpc(ScheduleService.method.upsertDeadline, ({ deadline }) => {
        offsets.push(deadline?.reminderOffsets?.offsets.map(({ seconds }) => Number(seconds)));
        return { deadline: { key: deadline?.key ?? "", reminders: [{ time: { seconds: 0n } }] } };
      })
      .rpc(ScheduleService.method.deleteDeadline, () => ({ cancelled: 2 })),
  );
  const w = world({ env: { POSTHORN_SERVER: server, POSTHORN_API_KEY: "k" } });
  expect((await w.run("deadlines set ann task --at +3d --title Hi")).out.join()).toContain("1970-01-01T00:00:00Z");
  await w.run("deadlines set ann task --at +3d --title Hi --remind 7d,1h");
  expect(offsets).toEqual([undefined, [604_800, 3600]]);
  expect((await w.run("deadlines delete ann task")).err).toEqual(["2 reminders cancelled"]);
});

test("what a type words needs no title in a schedule or a deadline, and anything else does", async () => {
  const contents: unknown[] = [];
  const { server } = await serving((router) =>
    router
      .rpc(ScheduleService.method.createSchedule, ({ schedule }) => {
        const { type, content } = schedule?.request ?? {};
        contents.push([type, content?.title, content?.data]);
        return {};
      })
      .rpc(ScheduleService.method.upsertDeadline, ({ deadline }) => {
        contents.push([deadline?.type, deadline?.content?.title, deadline?.content?.data]);
        return {};
      }),
  );
  const w = world({ env: { POSTHORN_SERVER: server, POSTHORN_API_KEY: "k" } });
  const commands = [
    "schedules create s ann --rule FREQ=DAILY --start 2026-01-01T09:20",
    "deadlines set ann d --at +3d",
  ];
  for (const command of commands) {
    expect((await w.run(`${command} --type shipped --data {"n":1}`)).exitCode).toBe(0);
    for (const less of ["", " --type shipped", ' --data {"n":1}']) {
      const { exitCode, err } = await w.run(`${command}${less}`);
      expect({ exitCode, err: err.join() }).toEqual({ exitCode: 2, err: expect.stringContaining("Give --title") });
    }
  }
  expect(contents).toEqual(commands.map(() => ["shipped", "", { n: 1 }]));
});

test("timing shows the hours and which are good, and forgets", async () => {
  const asked: object[] = [];
  let known = true;
  const { server } = await serving((router) => {
    router.rpc(PreferencesService.method.getLearntTiming, ({ userId }) => {
      asked.push({ userId });
      const hours = [8, 9].map((hour) => ({ hour, weekdayLooks: hour === 9 ? 20 : 1, goodOnWeekdays: hour === 9 }));
      return known ? { hours, looks: 21, enough: true } : {};
    });
    router.rpc(PreferencesService.method.deleteLearntTiming, ({ userId, reason }) => {
      asked.push({ userId, reason });
      return known ? { reconciled: { released: 2 } } : {};
    });
  });
  const w = world({ env: { POSTHORN_SERVER: server, POSTHORN_API_KEY: "k" } });
  const { out } = await w.run("timing --user ada");
  expect(out[0]).toBe("21.0 looks from - to -, enough to go by");
  expect(out[2]).toMatch(/^08:00 +#$/);
  expect(out[3]).toMatch(/^09:00 +\* #{20}$/);
  expect((await w.run("timing forget --user ada --reason asked")).err).toEqual(["forgotten; 2 notifications released"]);
  known = false;
  expect((await w.run("timing --user ada")).out).toEqual(["nothing was learnt"]);
  expect((await w.run("timing forget --user ada")).err).toEqual(["nothing was learnt"]);
  expect(asked[1]).toEqual({ userId: "ada", reason: "asked" });
  expect(asked[3]).toEqual({ userId: "ada", reason: "posthorn timing" });
});

test("subscriptions: one target and a filter are added with a reason, and all can be ended", async () => {
  const created: CreateSubscriptionRequest[] = [];
  const ended: UnsubscribeAllRequest[] = [];
  const { server } = await serving((router) => {
    router.rpc(PreferencesService.method.createSubscription, (request) => {
      created.push(request);
      const { target, filter } = request.subscription ?? {};
      return { subscription: { id: ID, target: target ?? { case: undefined }, filter: filter ?? "" } };
    });
    router.rpc(PreferencesService.method.unsubscribeAll, (request) => {
      ended.push(request);
      return { subscriptions: 2, topics: 1, notifications: 3n };
    });
  });
  const w = world({ env: { POSTHORN_SERVER: server, POSTHORN_API_KEY: "k" } });
  const added = await w.run("subscriptions add --user ada --type job --filter priority>2");
  expect(created).toMatchObject([
    {
      userId: "ada",
      subscription: { target: { case: "type", value: "job" }, filter: "priority>2" },
      reason: "posthorn subscriptions",
    },
  ]);
  expect(added).toMatchObject({
    exitCode: 0,
    out: [expect.stringMatching(new RegExp(`${ID} +type +job +priority>2`))],
  });
  expect((await w.run("subscriptions add --user ada --type job --topic news")).exitCode).toBe(2);
  expect((await w.run("subscriptions add --user ada")).exitCode).toBe(2);
  const all = await w.run("subscriptions remove all --user ada --reason moved");
  expect(ended).toMatchObject([{ userId: "ada", reason: "moved" }]);
  expect(all.out).toEqual(["opted out: 2 subscriptions, 1 topic, 3 notifications ended"]);
});
