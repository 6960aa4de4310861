import type { Interceptor } from "@connectrpc/connect";
import { createClient } from "@connectrpc/connect";
import { createConnectTransport } from "@connectrpc/connect-node";
import { AdminService, Scope, TokenAlgorithm } from "#gen/posthorn/v1/admin_service_pb.ts";
import { Channel } from "#gen/posthorn/v1/notification_pb.ts";
import { PreferencesService } from "#gen/posthorn/v1/preferences_service_pb.ts";
import { ScheduleService } from "#gen/posthorn/v1/schedule_service_pb.ts";
import { SendService } from "#gen/posthorn/v1/send_service_pb.ts";
import { StreamService } from "#gen/posthorn/v1/stream_service_pb.ts";
import { TopicService } from "#gen/posthorn/v1/topic_service_pb.ts";
import { TypeService } from "#gen/posthorn/v1/type_service_pb.ts";
import { UserService } from "#gen/posthorn/v1/user_service_pb.ts";
import { TYPED } from "./fitting.ts";

/** Whose everything is that is made. */
export const OWNER = "u1";
const KEY = "orders";
const HOUR = 3600n;

/**
 * One of everything that a method may be about, by the kind of it: all of `OWNER`, so that requests that only follow
 * the contract's rules come to something now and then. The platform has outside channels.
 */
export async function makeOneOfEach(httpUrl: string, key: string, user: string): Promise<Record<string, string[]>> {
  const as = (authorization: string): Interceptor => {
    return (next) => (request) => {
      request.header.set("authorization", authorization);
      return next(request);
    };
  };
  const connect = (authorization: string) =>
    createConnectTransport({ baseUrl: httpUrl, httpVersion: "1.1", interceptors: [as(authorization)] });
  const transport = connect(key);
  const admin = createClient(AdminService, transport);
  const preferences = createClient(PreferencesService, transport);
  const schedules = createClient(ScheduleService, transport);
  const topics = createClient(TopicService, transport);
  const { send } = createClient(SendService, transport);

  const contact = { email: "u1@example.com", phone: "+4915112345678" };
  await createClient(UserService, transport).upsertUser({ user: { id: OWNER, roles: ["orders"], ...contact } });
  const batching = { batchable: true, window: { seconds: 2n * HOUR } };
  const types = createClient(TypeService, transport);
  await types.createType({ type: { key: "heap", category: "heaps", batching } });
  await types.createType({ type: { key: KEY, category: "orders" } });
  await types.createType({ type: { key: TYPED, category: "orders" } });
  await topics.upsertTopic({ topic: { key: KEY, description: "All of them" } });
  await topics.addMembers({ key: KEY, userIds: [OWNER] });
  const content = { title: "Made" };
  const to = { userIds: [OWNER] };
  const sent = async (more: object) => {
    const { results } = await send({ to, content, waitForDecision: { seconds: 10n }, ...more });
    return { id: results[0]?.notificationId ?? "", batch: results[0]?.batchId ?? "" };
  };
  const steps = [{ channel: Channel.SMS, after: { seconds: HOUR } }];
  const soon = { seconds: BigInt(Math.floor(Date.now() / 1000)) + 24n * HOUR };
  const later = { schedule: { case: "scheduleTime", value: soon } };
  const delivered = await sent({});
  const escalating = await sent({ channels: [Channel.IN_APP, Channel.EMAIL], escalation: { steps } });
  const waiting = [await sent(later), await sent(later), await sent(later)];
  const batches = [await sent({ type: "heap" }), await sent({ type: "heap" })];
  const { fanoutId } = await send({ to: { topics: [KEY] }, content });
  const apiKeys = await Promise.all(
    [1, 2, 3].map(() => admin.createApiKey({ displayName: "made", scopes: [Scope.SEND] })),
  );
  const { tokenIssuer } = await admin.createTokenIssuer({
    ...{ issuer: "https://made.example", audience: httpUrl, algorithm: TokenAlgorithm.HS256 },
    key: { case: "secret", value: new Uint8Array(32).fill(7) },
  });
  const target = { case: "type", value: KEY } as const;
  const { subscription } = await preferences.createSubscription({
    userId: OWNER,
    subscription: { target },
    reason: "made",
  });
  const recurring = { recurrence: "FREQ=DAILY", localStartTime: "2026-01-01T09:00" };
  await schedules.createSchedule({ schedule: { key: KEY, request: { to, content }, ...recurring } });
  await schedules.upsertDeadline({ deadline: { userId: OWNER, key: KEY, time: soon, content } });
  return {
    notification: [delivered.id, escalating.id],
    escalation: [escalating.id],
    waiting: waiting.map(({ id }) => id),
    batch: batches.map(({ batch }) => batch),
    fanout: [fanoutId],
    apikey: apiKeys.map(({ apiKey }) => apiKey?.id ?? ""),
    tokenissuer: [tokenIssuer?.id ?? ""],
    subscription: [subscription?.id ?? ""],
    ...Object.fromEntries(["schedule", "deadline", "topic", "type"].map((kind) => [kind, [KEY]])),
    cursor: [await firstCursor(connect(user))],
  };
}

async function firstCursor(transport: ReturnType<typeof createConnectTransport>): Promise<string> {
  for await (const { event } of createClient(StreamService, transport).subscribe({}))
    if (event.case === "caughtUp") return event.value.cursor;
  throw new Error("it did not catch up");
}
