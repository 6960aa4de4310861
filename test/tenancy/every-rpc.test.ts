import { type DescMethod, type Message, toJsonString } from "@bufbuild/protobuf";
import { timestampFromDate } from "@bufbuild/protobuf/wkt";
import { ConnectError } from "@connectrpc/connect";
import postgres from "postgres";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { Scope, TokenAlgorithm } from "#gen/posthorn/v1/admin_service_pb.ts";
import { Channel, Priority, Status } from "#gen/posthorn/v1/notification_pb.ts";
import { StreamService } from "#gen/posthorn/v1/stream_service_pb.ts";
import { TypeService } from "#gen/posthorn/v1/type_service_pb.ts";
import { ACCESS_RULES, type AccessRule } from "#src/rpc/access-rules.ts";
import { sinkFolder } from "../escalation/setup.ts";
import { SERVICES } from "../support/contract.ts";
import { shipped } from "../support/descriptors.ts";
import { type Clients, platformOfFile } from "../support/platform.ts";
import { toRefusal } from "../support/refusal.ts";
import { openReader } from "../support/stream-reader.ts";
import { contentOf } from "../support/tenant-tables.ts";
import { until } from "../support/until.ts";
import { type Fill, NAMED_VAULT, requestsOf } from "./requests.ts";

// The victim is the file's tenant, `node.key`. Each method is called by a tenant of its own, which has nothing.
const sink = await sinkFolder();
const node = await platformOfFile({ roles: ["api", "stream", "worker"], env: sink.env });
const sql = postgres(node.services.databaseUrl, { max: 1, onnotice: () => undefined });
afterAll(() => sql.end());

const METHODS = Object.entries(SERVICES).flatMap(([client, service]) =>
  service.methods.map((method): [string, { client: keyof Clients; method: DescMethod }] => [
    `${service.typeName}.${method.name}`,
    { client: client as keyof Clients, method },
  ]),
);

/** In everything the victim says and names, and in nothing that is asked. */
const CANARY = "canary";

/**
 * Methods that may succeed with ids of somebody else, because they make, list, count or clear what is the caller's own,
 * or are idempotent where there is nothing. All others have to refuse.
 */
const OWN = new Set(
  [
    "AdminService: CreateApiKey CreateUserToken RevokeUserTokens ListApiKeys ListTokenIssuers ListAuditEntries WhoAmI GetTenant",
    "AdminService: CreateTokenIssuer DeleteTokenIssuer",
    "AnalyticsService: QueryCounters",
    "BatchService: ListBatches",
    "InboxService: ListEntries GetCounts MarkRead MarkUnread MarkSeen MarkAllRead Archive Unarchive Snooze Unsnooze",
    "InboxService: DeleteEntries Clear",
    "PreferencesService: GetPreferences UpdatePreferences ResetPreferences GetEffectivePreferences GetDefaultPreferences",
    "PreferencesService: UpdateDefaultPreferences ListSubscriptions DeleteSubscription UnsubscribeAll",
    "PreferencesService: GetLearntTiming DeleteLearntTiming",
    "ScheduleService: ListSchedules DeleteSchedule ListDeadlines DeleteDeadline",
    "SendService: Send SendBatch SendStream ListNotifications CancelNotifications",
    "StreamService: Subscribe GetPresence Broadcast",
    "TopicService: UpsertTopic ListTopics DeleteTopic ListUserTopics",
    "TypeService: CreateType ListTypes DeleteType LoadPreset",
    "UserService: UpsertUser ListUsers DeleteUser ImportUsers",
  ].flatMap((line) => {
    const [service, names = ""] = line.split(": ");
    return names.split(" ").map((name) => `posthorn.v1.${service}.${name}`);
  }),
);

/** What has to be filled in differently for a request to get past validation. */
const OTHERWISE: Readonly<Record<string, Fill>> = { PreviewSend: { topics: [], roles: [], collapse_key: "" } };

const REFUSALS = [
  "NOT_FOUND",
  "INVALID_REQUEST",
  "INVALID_PAGE_TOKEN",
  "CALLER_NOT_ALLOWED",
  // The pair of issuer and audience belongs to one tenant, as the contract says.
  "ALREADY_EXISTS",
];

let fill: Fill;
let ids: string[];
/** Its first channel has it, and the next is to follow. */
let escalating: string;
let before: Record<string, string>;
let seen: ReturnType<typeof openReader>;

beforeAll(async () => {
  const { key } = node;
  const alice = { id: "alice", displayName: CANARY, email: "canary@example.com", roles: ["vault"] };
  await key.users.upsertUser({ user: alice });
  await key.users.upsertUser({ user: { ...alice, id: "bert" } });
  for (const name of ["vault", "vault2"]) {
    await key.types.createType({ type: { key: name, displayName: CANARY, category: "vault" } });
    await key.topics.upsertTopic({ topic: { key: name, description: CANARY } });
    await key.topics.addMembers({ key: name, userIds: ["alice", "bert"] });
  }
  await key.preferences.updatePreferences({ userId: "alice", preferences: { language: "cn-canary" }, reason: CANARY });
  await key.preferences.updateDefaultPreferences({ preferences: { language: "cn-canary" }, reason: CANARY });
  const subscriptions = [];
  for (const filter of ['"canary" == "canary"', 'type != "canary"']) {
    const subscription = { target: { case: "category" as const, value: "vault" }, filter };
    subscriptions.push(await key.preferences.createSubscription({ userId: "alice", subscription, reason: CANARY }));
  }
  const { apiKey } = await key.admin.createApiKey({ displayName: CANARY, scopes: [Scope.SEND] });
  const secret = { case: "secret", value: new Uint8Array(32).fill(7) } as const;
  const issuers = await Promise.all(
    ["vault", "vault2"].map((audience) =>
      key.admin.createTokenIssuer({
        issuer: "https://vault.example",
        audience,
        algorithm: TokenAlgorithm.HS256,
        key: secret,
      }),
    ),
  );
  seen = openReader(key, { userId: "alice", deviceId: "canary-device", includeStatus: true });
  await seen.next("hello");

  const content = { title: CANARY, body: CANARY };
  const send = (more: object) =>
    key.send.send({ to: { userIds: ["alice"] }, type: "vault", content, senderId: CANARY, ...more });
  const first = await send({ idempotencyKey: "same", tags: ["vault"], groupKey: "same" });
  const escalation = { steps: [{ channel: Channel.SMS, after: { seconds: 86_400n } }] };
  const urgent = await send({ dedupKey: "same", channels: [Channel.IN_APP, Channel.EMAIL], escalation });
  const later = { case: "scheduleTime", value: timestampFromDate(new Date(Date.now() + 3 * 3_600_000)) } as const;
  const waiting = await send({ schedule: later, collapseKey: "same", tags: ["vault"] });
  const batching = { batchable: true, window: { seconds: 7200n } };
  await key.types.updateType({ type: { key: "vault", description: CANARY } });
  await key.types.createType({ type: { key: "vault3", displayName: CANARY, category: "vault", batching } });
  const [batched] = await Promise.all(
    [Priority.NORMAL, Priority.HIGH].map((priority) =>
      send({ type: "vault3", priority, waitForDecision: { seconds: 10n } }),
    ),
  );
  const fanout = await key.send.send({ to: { topics: ["vault"] }, type: "vault", content });
  await until(
    async () => (await key.send.getFanout({ id: fanout.fanoutId })).fanout?.created,
    (created) => created === 2n,
  );
  await until(
    () => sql`select status from notifications
      where status not in (${Status.DELIVERED}, ${Status.SCHEDULED}, ${Status.BATCHED})
      or status = ${Status.DELIVERED} and inbox_seq is null`,
    (open) => open.length === 0,
  );
  await until(
    async () => seen.sequences(),
    (sequences) => sequences.length >= 3,
  );
  for (const name of ["vault", "vault2"]) {
    const far = timestampFromDate(new Date(Date.now() + 300 * 3_600_000));
    await key.schedules.upsertDeadline({
      deadline: { userId: "alice", key: name, type: "vault", time: far, content: { title: CANARY } },
    });
    const request = { to: { userIds: ["alice"] }, type: "vault", content: { title: CANARY } };
    await key.schedules.createSchedule({
      schedule: { key: name, request, recurrence: "FREQ=DAILY", localStartTime: "2026-01-01T09:00" },
    });
  }
  await key.types.createType({ type: { key: "typed", displayName: CANARY, category: "vault" } });
  const versions = ["string canary = 1;", "string canary = 1; string canary2 = 2;"].map((fields) => shipped(fields));
  for (const descriptorSet of versions)
    await key.types.pushPayload({ type: "typed", descriptorSet, message: "acme.Shipped" });
  const delivered = first.results[0]?.notificationId ?? "";
  const scheduled = waiting.results[0]?.notificationId ?? "";
  escalating = urgent.results[0]?.notificationId ?? "";
  ids = [
    delivered,
    escalating,
    scheduled,
    fanout.fanoutId,
    batched?.results[0]?.batchId ?? "",
    apiKey?.id ?? "",
    issuers[0]?.tokenIssuer?.id ?? "",
    node.tenant.tenantId,
    "alice",
  ];
  expect(ids.every((id) => id !== "")).toBe(true);

  fill = {
    user_id: "alice",
    user_ids: ["alice"],
    ids: [delivered, scheduled],
    notification_id: delivered,
    notification_ids: [delivered, scheduled],
    fanout_id: fanout.fanoutId,
    batch_id: batched?.results[0]?.batchId ?? "",
    subscription_id: subscriptions[0]?.subscription?.id ?? "",
    filter: "priority > 0",
    ...NAMED_VAULT,
    "PushPayloadRequest.type": "typed",
    "CheckPayloadRequest.type": "typed",
    "GetPayloadRequest.type": "typed",
    "ListPayloadsRequest.type": "typed",
    descriptor_set: versions[0],
    message: "acme.Shipped",
    version: 0,
    cursor: seen.cursor(),
    device_id: "phone",
    idempotency_key: "same",
    dedup_key: "same",
    collapse_key: "same",
    sender_id: "alice",
    group_key: "same",
    issuer: "https://vault.example",
    audience: "vault",
    secret: new Uint8Array(32).fill(7),
    page_token: "",
    page_size: 5,
    through_sequence: 1n,
    chunk_id: 1n,
    etag: "",
    reason: "by another",
    title: "By another",
    body: "By another",
    more: "By another",
    display_name: "By another",
    description: "By another",
    email: "by@example.com",
    phone: "+4915112345678",
    locale: "de",
    language: "de",
    time_zone: "Europe/Berlin",
    recurrence: "FREQ=DAILY",
    local_start_time: "2026-01-01T09:00",
    local_schedule_time: "2099-01-01T12:00:00",
    day_of_week: 1,
    start_time: "22:00",
    end_time: "23:00",
    time: "09:00",
    days: [1],
    max_size: 5,
    max_per_hour: 100,
    ...{ email_per_day: 9, sms_per_day: 9, push_per_day: 9, webhook_per_day: 9, chat_per_day: 9 },
    note: "By another",
    replacement: "general",
    value: 4,
    urgency: 4,
  };
  await sql`
    insert into looks (tenant_id, user_id, weights, since, last_hour)
    values (${node.tenant.tenantId}, 'alice', array_fill(1::float8, array[48]), now() - interval '30 days', now())`;
  before = await contentOf(sql, node.tenant.tenantId);
  for (const [name, content] of Object.entries(before))
    if (name !== "token_revocations") expect(content, name).not.toMatch(/^0 /);
});

type Answer = { refused: string } | { answered: string };

/** Calls any kind of method with one request and collects what comes back. */
async function call(
  clients: Clients,
  { client, method }: { client: keyof Clients; method: DescMethod },
  request: Message,
): Promise<Answer> {
  const closing = new AbortController();
  try {
    const invoke = Reflect.get(clients[client], method.localName) as (input: unknown, options: object) => never;
    const answers: Message[] = [];
    if (method.methodKind === "unary") {
      answers.push(await (invoke(request, {}) as Promise<Message>));
    } else {
      const input =
        method.methodKind === "server_streaming"
          ? request
          : (async function* () {
              yield request;
            })();
      for await (const each of invoke(input, { signal: closing.signal }) as AsyncIterable<
        Message & { event?: { case: string } }
      >) {
        answers.push(each);
        if (each.event !== undefined && ["caughtUp", "reset"].includes(each.event.case)) break;
      }
    }
    return { answered: answers.map((each) => toJsonString(method.output, each)).join("\n") };
  } catch (error) {
    const refusal = toRefusal(ConnectError.from(error));
    return { refused: refusal.reason || `${refusal.code}: ${refusal.message}` };
  } finally {
    closing.abort();
  }
}

/** What a stranger names: any id where there is one, and each kind of notification. */
function namedBy({ input }: DescMethod): Fill[] {
  const has = (name: string) => input.fields.some((field) => field.name === name);
  if (has("id")) return ids.map((id) => ({ id }));
  return has("notification_id") ? [{ id: ids[0] }, { id: ids[0], notification_id: escalating }] : [{ id: ids[0] }];
}

test("every method that is served is tried", () => {
  expect(METHODS.map(([name]) => name).toSorted()).toEqual(Object.keys(ACCESS_RULES).toSorted());
});

describe("another tenant's ids", () => {
  test.each(METHODS)("%s", async (name, target) => {
    const rule: AccessRule = ACCESS_RULES[name as keyof typeof ACCESS_RULES];
    const other = await node.newTenant();
    const callers = [node.clients(other.apiKey)];
    if (rule.user !== undefined) callers.push(await node.clientsFor("alice", other));
    const answers: Answer[] = [];
    for (const caller of callers) {
      for (const named of namedBy(target.method))
        for (const request of requestsOf(target.method, { ...fill, ...named, ...OTHERWISE[target.method.name] }))
          answers.push(await call(caller, target, request));
    }
    for (const answer of answers) {
      if ("refused" in answer) expect(REFUSALS).toContain(answer.refused);
      else expect(answer.answered.toLowerCase()).not.toContain(CANARY);
    }
    const answered = answers.filter((answer) => "answered" in answer);
    if (OWN.has(name)) expect(answered).not.toEqual([]);
    else expect(answered).toEqual([]);
    // At least one request got past validation, or nothing was tested.
    // (An Ack is of an entry: there is none, and the fault looks the same.)
    if (rule.key !== undefined && target.method !== StreamService.method.ack)
      expect(answers.some((each) => !("refused" in each) || each.refused !== "INVALID_REQUEST")).toBe(true);
    expect(await contentOf(sql, node.tenant.tenantId)).toEqual(before);
  });
});

const LISTS = METHODS.filter(
  ([name, { method }]) =>
    method.input.fields.some((field) => field.name === "page_token") &&
    (ACCESS_RULES[name as keyof typeof ACCESS_RULES] as AccessRule).key !== undefined,
);

test("there are lists", () => expect(LISTS.length).toBeGreaterThanOrEqual(9));

describe("another tenant's page token", () => {
  test.each(LISTS)("%s", async (name, target) => {
    const own = (clients: Clients, pageToken: string) =>
      (
        Reflect.get(clients[target.client], target.method.localName) as (
          request: object,
        ) => Promise<{ nextPageToken: string }>
      )({
        userId: "alice",
        key: "vault",
        ...(target.method === TypeService.method.listPayloads ? { type: "typed" } : {}),
        pageSize: 1,
        pageToken,
      });
    const { nextPageToken } = await own(node.key, "");
    expect(nextPageToken, `${name} has a second page`).not.toBe("");
    const other = await node.newTenant();
    const clients = node.clients(other.apiKey);
    if (target.client === "topics") await clients.topics.upsertTopic({ topic: { key: "vault" } });
    const error = await own(clients, nextPageToken).then(() => undefined, ConnectError.from);
    expect(error === undefined ? "answered" : toRefusal(error).reason).toBe("INVALID_PAGE_TOKEN");
    // And it is good for whom it was made.
    await own(node.key, nextPageToken);
  });
});

test("the victim's stream has heard nothing of all that", async () => {
  const { results } = await node.key.send.send({ to: { userIds: ["alice"] }, content: { title: "the end" } });
  await seen.next("notification", ({ entry }) => entry?.notificationId === results[0]?.notificationId);
  const foreign = seen.events.filter(
    ({ case: kind, value }) => kind === "announcement" || JSON.stringify(value, plain).includes("By another"),
  );
  expect(foreign).toEqual([]);
  const quiet = new Set(["hello", "caughtUp", "notification", "status", "batch", "heartbeat"]);
  expect(seen.events.filter(({ case: kind }) => !quiet.has(kind ?? ""))).toEqual([]);
  await seen.close();
});

const plain = (_: string, value: unknown) => (typeof value === "bigint" ? value.toString() : value);
