import { timestampFromDate } from "@bufbuild/protobuf/wkt";
import { Scope, TokenAlgorithm } from "#gen/posthorn/v1/admin_service_pb.ts";
import { Channel } from "#gen/posthorn/v1/notification_pb.ts";
import { shipped } from "../support/descriptors.ts";
import { OPERATOR_KEY, type TestPlatform } from "../support/platform.ts";
import { until } from "../support/until.ts";
import { type Fill, NAMED_VAULT } from "../tenancy/requests.ts";

/** A tenant with one of everything in it, and a credential of every kind. All worlds are alike but for ids and times. */
export type World = {
  tenantId: string;
  /** Values of `authorization`. */
  as: { key: string; sendKey: string; inboxKey: string; user: string; operator: string };
  /** What requests are filled with, by the proto name of the field, or "Message.field" for that one only. */
  fill: Fill;
  /** What goes wherever a request has an `id`, by the resource it names: the method's name without its verb. */
  ids: Readonly<Record<string, string>>;
};

const HOURS = 3_600_000;

export async function makeWorld(node: TestPlatform): Promise<World> {
  const tenant = await node.newTenant();
  const key = node.clients(tenant.apiKey);
  await key.users.upsertUser({ user: { id: "alice", displayName: "Alice", email: "a@example.com", roles: ["vault"] } });
  await key.users.upsertUser({ user: { id: "bert", displayName: "Bert", roles: ["vault"] } });
  await key.types.createType({ type: { key: "vault", displayName: "Vault", category: "vault" } });
  await key.topics.upsertTopic({ topic: { key: "vault", description: "All of the vault" } });
  await key.topics.addMembers({ key: "vault", userIds: ["alice", "bert"] });
  const keyWith = async (scope: Scope) => {
    const { secret, apiKey } = await key.admin.createApiKey({ displayName: "Only one", scopes: [scope] });
    return { secret, id: apiKey?.id ?? "" };
  };
  const [send, inbox] = [await keyWith(Scope.SEND), await keyWith(Scope.INBOX)];
  const { tokenIssuer } = await key.admin.createTokenIssuer({
    issuer: `https://${tenant.tenantId}.example`,
    audience: "vault",
    algorithm: TokenAlgorithm.HS256,
    key: { case: "secret", value: new Uint8Array(32).fill(7) },
  });
  const content = { title: "Hello", body: "Là-bas ☃" };
  const decided = { waitForDecision: { seconds: 10n } };
  const to = { userIds: ["alice"] };
  const first = await key.send.send({ to, type: "vault", content, idempotencyKey: "taken", ...decided });
  const steps = [{ channel: Channel.SMS, after: { seconds: 86_400n } }];
  const urgent = { content: { title: "Second" }, dedupKey: "taken", escalation: { steps } };
  const second = await key.send.send({ to, type: "vault", ...urgent, ...decided });
  const later = { case: "scheduleTime", value: timestampFromDate(new Date(Date.now() + 3 * HOURS)) } as const;
  const waiting = await key.send.send({ to, type: "vault", content, schedule: later, tags: ["vault"] });
  const batching = { batchable: true, window: { seconds: 7200n } };
  await key.types.createType({ type: { key: "heap", displayName: "Heap", category: "vault", batching } });
  const batched = await key.send.send({ to, type: "heap", content, ...decided });
  const { subscription } = await key.preferences.createSubscription({
    userId: "alice",
    subscription: { target: { case: "type", value: "vault" }, filter: "priority > 1" },
    reason: "said so",
  });
  const { fanoutId } = await key.send.send({ to: { topics: ["vault"] }, type: "vault", content });
  await until(
    async () => (await key.inbox.getCounts({ userId: "alice" })).counts?.total,
    (total) => total === 3,
  );
  await key.schedules.createSchedule({
    schedule: { key: "vault", request: { to, content }, recurrence: "FREQ=DAILY", localStartTime: "2026-01-01T09:00" },
  });
  await key.schedules.upsertDeadline({ deadline: { userId: "alice", key: "vault", time: later.value, content } });
  await key.types.createType({ type: { key: "typed" } });
  const descriptorSet = shipped("string order = 1; int32 parcels = 2;");
  for (const set of [shipped("string order = 1;"), descriptorSet])
    await key.types.pushPayload({ type: "typed", descriptorSet: set, message: "acme.Shipped" });
  const { token } = await key.admin.createUserToken({ userId: "alice" });
  const delivered = first.results[0]?.notificationId ?? "";
  const scheduled = waiting.results[0]?.notificationId ?? "";
  return {
    tenantId: tenant.tenantId,
    as: {
      key: `Bearer ${tenant.apiKey}`,
      sendKey: `Bearer ${send.secret}`,
      inboxKey: `Bearer ${inbox.secret}`,
      user: `Bearer ${token}`,
      operator: `Bearer ${OPERATOR_KEY}`,
    },
    ids: {
      Tenant: tenant.tenantId,
      ApiKey: inbox.id,
      TokenIssuer: tokenIssuer?.id ?? "",
      Notification: scheduled,
      ConfirmNotification: delivered,
      Escalation: second.results[0]?.notificationId ?? "",
      Fanout: fanoutId,
      Batch: batched.results[0]?.batchId ?? "",
      User: "alice",
      Subscription: subscription?.id ?? "",
    },
    fill: {
      user_id: "alice",
      user_ids: ["alice"],
      ids: [scheduled],
      notification_id: delivered,
      notification_ids: [delivered],
      fanout_id: fanoutId,
      batch_id: batched.results[0]?.batchId ?? "",
      subscription_id: subscription?.id ?? "",
      filter: "priority > 1",
      ...NAMED_VAULT,
      "PushPayloadRequest.type": "typed",
      "CheckPayloadRequest.type": "typed",
      "GetPayloadRequest.type": "typed",
      "ListPayloadsRequest.type": "typed",
      descriptor_set: descriptorSet,
      message: "acme.Shipped",
      version: 0,
      cursor: "",
      device_id: "phone",
      idempotency_key: "",
      dedup_key: "",
      collapse_key: "",
      sender_id: "bert",
      group_key: "vault",
      issuer: `https://other.${tenant.tenantId}.example`,
      audience: "vault",
      secret: new Uint8Array(32).fill(9),
      page_token: "",
      page_size: 1,
      through_sequence: 1n,
      chunk_id: 1n,
      etag: "",
      reason: "said so",
      title: "Titre à l’ancienne",
      body: "☃",
      more: "☃",
      display_name: "Another",
      description: "Another",
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
      // Else what is scheduled would end with the first change of preferences.
      "Preferences.enabled": true,
      "ChannelPreferences.in_app": true,
      time: "09:00",
      days: [1],
      max_size: 5,
      max_per_hour: 100,
      ...{ email_per_day: 9, sms_per_day: 9, push_per_day: 9, webhook_per_day: 9, chat_per_day: 9 },
      note: "By another",
      replacement: "general",
      value: 4,
      urgency: 4,
    },
  };
}
