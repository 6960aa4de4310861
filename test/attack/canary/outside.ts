import { Channel, Priority } from "#gen/posthorn/v1/notification_pb.ts";
import { Digest_Mode } from "#gen/posthorn/v1/preferences_service_pb.ts";
import type { Clients } from "../../support/platform.ts";
import { until } from "../../support/until.ts";
import { type AllCanaries, type Call, contentOf, PHONE } from "./exercise.ts";

/** What leads outside, and what waits together: made in good times, and asked about in all. */
export type Waiting = {
  /** Its first channel has refused it, and its escalation goes on. */
  readonly escalating: string;
  readonly delivered: string;
  readonly batch: string;
  /** Of users who are told once a day, and once an hour. */
  readonly digest: string;
  readonly overCap: string;
};

const OUTSIDE = [Channel.EMAIL, Channel.SMS, Channel.PUSH, Channel.WEBHOOK, Channel.CHAT];
const DECIDED = { waitForDecision: { seconds: 10n } };
/** Users who are told seldom. */
const DAILY = "daily";
const CAPPED = "capped";
/** One whose preferences nobody changes: that would dissolve what waits. */
const GATHERING = "gathering";

/** `clients` has a key of the tenant, `asUser` a token of `userId`. */
export async function makeWaiting(clients: Clients, canary: AllCanaries, userId: string): Promise<Waiting> {
  const { users, types, preferences, send } = clients;
  const { reason, senderId, groupKey } = canary;
  const content = contentOf(canary);
  const contact = { displayName: canary.displayName, email: `${canary.email}@example.com`, phone: PHONE };
  for (const id of [userId, DAILY, CAPPED, GATHERING]) await users.upsertUser({ user: { id, ...contact } });
  const prefer = (id: string, wishes: object) =>
    preferences.updatePreferences({ userId: id, preferences: wishes, reason });
  await prefer(userId, { hourlyCap: { enabled: false } });
  await prefer(DAILY, { digest: { mode: Digest_Mode.DAILY, time: "09:00" } });
  await prefer(CAPPED, { hourlyCap: { maxPerHour: 1 } });
  const batching = { batchable: true, window: { seconds: 7200n } };
  await types.createType({ type: { key: "heap", description: canary.typeDescription, batching } });
  const sent = async (to: string, more: object) => {
    const { results } = await send.send({ to: { userIds: [to] }, content, senderId, groupKey, ...DECIDED, ...more });
    return results[0] ?? { notificationId: "", batchId: "" };
  };
  const steps = OUTSIDE.map((channel) => ({ channel, after: { seconds: 10n } }));
  const { notificationId: escalating } = await sent(userId, { channels: OUTSIDE, escalation: { steps } });
  // One by which channel follows upon channel at once, and one that nobody will answer.
  await sent(userId, { channels: [Channel.EMAIL], escalation: { steps }, priority: Priority.CRITICAL });
  await sent(userId, { channels: [Channel.CHAT, Channel.WEBHOOK] });
  const { notificationId: delivered } = await sent(userId, {});
  const batches = [await sent(GATHERING, { type: "heap" }), await sent(GATHERING, { type: "heap" })];
  const digests = [await sent(DAILY, {}), await sent(DAILY, {})];
  await sent(CAPPED, {});
  const { notificationId: overCap } = await sent(CAPPED, {});
  return { escalating, delivered, batch: batches[0]?.batchId ?? "", digest: digests[0]?.batchId ?? "", overCap };
}

/** Everything that callers and users say about them; `asUser` is the client of a user's token. */
export function aboutWaiting(clients: Clients, asUser: Clients, canary: AllCanaries, made: Waiting): Call[] {
  const { send, batches, inbox } = clients;
  const { reason } = canary;
  const { escalating, delivered, batch, digest, overCap } = made;
  return [
    () => send.getNotification({ id: escalating }),
    () => send.getNotification({ id: overCap }),
    () => send.confirmNotification({ id: delivered, reason }),
    () => send.confirmNotification({ id: overCap, reason }),
    () => asUser.inbox.confirmEntry({ notificationId: delivered }),
    () => send.cancelEscalation({ id: escalating }),
    () => batches.closeBatch({ id: batch, reason }),
    () => batches.closeBatch({ id: digest, reason }),
    () => batches.getBatch({ id: batch }),
    () => batches.listBatches({}),
    () => send.send({ to: { userIds: [DAILY] }, content: contentOf(canary), channels: OUTSIDE }),
    () => send.confirmNotification({ id: delivered, reason: reason.repeat(20) }),
    () => send.confirmNotification({ id: canary.wrongField, reason }),
    () => send.cancelEscalation({ id: canary.wrongField }),
    () => batches.closeBatch({ id: canary.wrongField, reason: reason.repeat(20) }),
    () => inbox.listEntries({ userId: "someone", grouped: true }),
  ];
}

/** Until every channel has refused something. */
export function allRefused(said: () => readonly string[]): Promise<unknown> {
  return until(
    async () => OUTSIDE.filter((channel) => !said().includes(JSON.stringify({ refused: channel }))),
    (left) => left.length === 0,
  );
}
