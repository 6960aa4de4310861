import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import { Code, ConnectError } from "@connectrpc/connect";
import { TokenAlgorithm } from "#gen/posthorn/v1/admin_service_pb.ts";
import type { Preset } from "#gen/posthorn/v1/type_service_pb.ts";
import type { Clients } from "../../support/platform.ts";
import { openReader } from "../../support/stream-reader.ts";
import { canaries } from "./canaries.ts";
import { filterCalls, typedCalls } from "./rules.ts";

/** What people wrote, how they are reached, credentials, and keys that callers choose and that may say anything. */
export function makeCanaries() {
  return canaries(
    "title",
    "body",
    "data",
    "url",
    "imageUrl",
    "action",
    "displayName",
    "email",
    "attribute",
    "attributeName",
    "idempotencyKey",
    "dedupKey",
    "collapseKey",
    "tag",
    "topicDescription",
    "typeDescription",
    "reason",
    "keyName",
    "issuerSecret",
    "etag",
    "pageToken",
    "cursor",
    "forgedKey",
    "forgedToken",
    "wrongField",
    "filter",
    "senderId",
    "groupKey",
    "payload",
    "payloadKey",
    "payloadField",
    "payloadType",
    "literal",
  );
}

export type AllCanaries = ReturnType<typeof makeCanaries>;
/** Digits are all a phone number has. */
export const PHONE = "+4915199887766554".slice(0, 16);

export type Call = () => Promise<unknown>;

/** Everything that sends, stores or reads a canary in one way or another, and every refusal that one can cause. */
export function callsWith(clients: Clients, canary: AllCanaries, userId: string): Call[] {
  return [
    ...storingCalls(clients, canary, userId),
    ...refusedCalls(clients, canary, userId),
    ...typedCalls(clients, canary, userId),
    ...filterCalls(clients, canary, userId),
  ];
}

/**
 * Makes all calls; those of bad times at once, because each may take until its deadline. Answers the error texts of
 * what was refused.
 */
export async function exercise(calls: readonly Call[], times: "good" | "bad"): Promise<string[]> {
  const errors: string[] = [];
  const attempt = (call: Call) =>
    call().then(
      () => undefined,
      (error: unknown) => void errors.push(textOf(error)),
    );
  if (times === "bad") await Promise.all(calls.map(attempt));
  else for (const call of calls) await attempt(call);
  return errors;
}

function storingCalls(clients: Clients, canary: AllCanaries, userId: string): Call[] {
  const { users, topics, types, preferences, schedules, send, stream, inbox, admin } = clients;
  const content = contentOf(canary);
  const at = timestampFromMs(Date.now() + 3_600_000);
  const user = {
    id: userId,
    displayName: canary.displayName,
    email: `${canary.email}@example.com`,
    phone: PHONE,
    attributes: { [canary.attributeName]: canary.attribute },
  };
  const to = { userIds: [userId] };
  const keys = {
    ...{ dedupKey: canary.dedupKey, collapseKey: canary.collapseKey, tags: [canary.tag] },
    ...{ senderId: canary.senderId, groupKey: canary.groupKey },
  };
  const { idempotencyKey } = canary;
  const issuer = {
    issuer: `https://issuer.example/${canary.wrongField}`,
    algorithm: TokenAlgorithm.HS256,
    key: { case: "secret", value: Buffer.from(canary.issuerSecret.padEnd(40, "0")) },
  } as const;
  return [
    () => users.upsertUser({ user }),
    () => users.updateUser({ user, updateMask: { paths: ["display_name", "attributes"] } }),
    () => drain(users.importUsers(once({ users: [user, { ...user, email: canary.email }] }))),
    () => topics.upsertTopic({ topic: { key: "news", description: canary.topicDescription } }),
    () => topics.addMembers({ key: "news", userIds: [userId] }),
    () => types.updateType({ type: { key: "alert", description: canary.typeDescription }, allowMissing: true }),
    () => preferences.updatePreferences({ userId, preferences: { weekendsEnabled: true }, reason: canary.reason }),
    () =>
      preferences.createSubscription({
        userId,
        subscription: { target: { case: "topic", value: "news" }, filter: `data.x != "${canary.filter}"` },
        reason: canary.reason,
      }),
    () => send.send({ to, content, idempotencyKey, ...keys, waitForDecision: { seconds: 1n } }),
    () => send.send({ to, content, idempotencyKey, ...keys }),
    () => send.send({ to, content, idempotencyKey }),
    () => send.send({ to, content, schedule: { case: "scheduleTime", value: at }, ...keys }),
    () => send.send({ to: { topics: ["news"] }, content, ...keys }),
    () =>
      schedules.createSchedule({
        schedule: {
          key: "daily",
          request: { to, content, ...keys },
          recurrence: "FREQ=DAILY",
          localStartTime: "2026-01-01T09:00",
        },
      }),
    () => schedules.upsertDeadline({ deadline: { userId, key: "task", time: at, content } }),
    () => send.sendBatch({ items: [{ to, content, ...keys }, { content }] }),
    () => drain(send.sendStream(once({ items: [{ to, content }] }))),
    async () => {
      await using reader = openReader(clients, { userId, deviceId: "phone" });
      await reader.next("hello");
      await stream.broadcast({ audience: { case: "userId", value: userId }, content });
    },
    () => inbox.listEntries({ userId, filter: { tag: canary.tag } }),
    () => inbox.markAllRead({ userId, filter: { tag: canary.tag } }),
    () => send.listNotifications({ filter: { tag: canary.tag } }),
    () => admin.createApiKey({ displayName: canary.keyName, scopes: [1] }),
    () => admin.createTokenIssuer(issuer),
  ];
}

export function contentOf(canary: AllCanaries) {
  return {
    title: canary.title,
    body: canary.body,
    data: { [canary.data]: [canary.data] },
    url: `https://app.example/${canary.url}?q=${canary.url}`,
    imageUrl: `https://app.example/${canary.imageUrl}`,
    actions: [{ id: "open", label: canary.action, url: `/${canary.action}` }],
  };
}

/** Every kind of refusal that a caller's text can bring about. */
function refusedCalls(clients: Clients, canary: AllCanaries, userId: string): Call[] {
  const content = contentOf(canary);
  const to = { userIds: [userId] };
  return [
    () => clients.users.upsertUser({ user: { id: userId, email: canary.email } }),
    () => clients.users.upsertUser({ user: { id: userId, displayName: `${canary.displayName}\0` } }),
    () => clients.users.upsertUser({ user: { id: userId, attributes: { a: canary.attribute.repeat(500) } } }),
    () => clients.users.upsertUser({ user: { id: userId, locale: "xx-canary", timeZone: canary.wrongField } }),
    () => clients.send.send({ to, content: { ...content, url: `javascript:${canary.url}` } }),
    () => clients.send.send({ to, content: { ...content, title: canary.title.repeat(20) } }),
    () => clients.send.send({ to, content: { ...content, data: { [canary.data]: Number.NaN } } }),
    () => clients.send.send({ to, content, type: "nosuchtype" }),
    () => clients.send.send({ to, content, tags: [`topic:${canary.tag}`] }),
    () => clients.send.send({ to, content, expiry: { case: "expireTime", value: timestampFromMs(0) } }),
    () => clients.preferences.updatePreferences({ userId, preferences: {}, etag: canary.etag, reason: canary.reason }),
    () =>
      clients.preferences.updatePreferences({
        userId,
        preferences: { timeZone: canary.wrongField },
        reason: canary.reason,
      }),
    () =>
      clients.preferences.updatePreferences({
        userId,
        preferences: {},
        updateMask: { paths: [canary.wrongField] },
        reason: "x",
      }),
    () =>
      clients.preferences.createSubscription({
        userId,
        subscription: { target: { case: "topic", value: "news" }, filter: `${canary.filter} == 1` },
        reason: canary.reason,
      }),
    () => clients.users.listUsers({ pageToken: canary.pageToken }),
    () => openReader(clients, { userId, cursor: canary.cursor }).ended.then((error) => Promise.reject(error)),
    () => clients.types.createType({ type: { key: "general", description: canary.typeDescription } }),
    () => clients.types.loadPreset({ preset: 99 as Preset }),
  ];
}

/** Calls with credentials that are none, with text in addresses and headers, and requests that cannot be read. */
export async function knock(httpUrl: string, authorization: string, canary: AllCanaries): Promise<string[]> {
  const part = (json: object) => Buffer.from(JSON.stringify(json)).toString("base64url");
  const token = `${part({ alg: "HS256" })}.${part({ iss: canary.forgedToken, sub: canary.email })}.${canary.forgedToken}`;
  const json = { "content-type": "application/json" };
  const send = `${httpUrl}/posthorn.v1.SendService/Send`;
  const requests: [url: string, init: RequestInit][] = [
    ...[
      `Bearer ph_${canary.forgedKey}_${canary.forgedKey}`,
      `Bearer ${token}`,
      `Basic ${canary.forgedKey}`,
      canary.forgedKey,
    ].map((credential): [string, RequestInit] => [
      send,
      { method: "POST", headers: { ...json, authorization: credential }, body: "{}" },
    ]),
    [send, { method: "POST", headers: { ...json, authorization }, body: `{"content":{"title":"${canary.title}` }],
    [send, { method: "POST", headers: { ...json, authorization }, body: `{"${canary.wrongField}":"${canary.title}"}` }],
    [send, { method: "POST", headers: { ...json, authorization }, body: `{"content":{"title":["${canary.title}"]}}` }],
    [
      send,
      {
        method: "POST",
        headers: { ...json, authorization, tracestate: `a=${canary.title}`, baggage: `a=${canary.title}` },
        body: "{}",
      },
    ],
    [send, { method: "POST", headers: { ...json, authorization, "posthorn-tenant": canary.wrongField }, body: "{}" }],
    [
      send,
      { method: "POST", headers: { ...json, authorization, "connect-timeout-ms": canary.wrongField }, body: "{}" },
    ],
    [
      `${httpUrl}/posthorn.v1.UserService/GetUser?connect=v1&encoding=json&message=${encodeURIComponent(`{"id":"x","a":"${canary.email}"}`)}`,
      { headers: { authorization } },
    ],
    [`${httpUrl}/${canary.title}?${canary.title}`, {}],
    [`${httpUrl}/posthorn.v1.${canary.title}/${canary.title}`, { method: "POST", headers: json, body: "{}" }],
    [
      send,
      {
        method: "POST",
        headers: { ...json, authorization, "content-type": `application/${canary.wrongField}` },
        body: "{}",
      },
    ],
  ];
  return Promise.all(requests.map(async ([url, init]) => (await fetch(url, init)).text().catch(() => "")));
}

function textOf(error: unknown): string {
  const { code, rawMessage, details } = ConnectError.from(error);
  return `${Code[code]} ${rawMessage} ${details.map((detail) => Buffer.from("value" in detail && detail.value instanceof Uint8Array ? detail.value : []).toString("latin1")).join(" ")}`;
}

async function* once<T>(message: T): AsyncGenerator<T> {
  yield message;
}

async function drain(answers: AsyncIterable<unknown>): Promise<void> {
  for await (const _ of answers);
}
