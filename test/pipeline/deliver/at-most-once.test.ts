import { expect, test } from "vitest";
import { Channel, Reason, Status, VerdictKind } from "#gen/posthorn/v1/notification_pb.ts";
import { DeliveryMode } from "#gen/posthorn/v1/type_service_pb.ts";
import type { Outcome } from "#src/channels/channel.ts";
import { MINUTE, steppedClock } from "../../batches/setup.ts";
import { escalating, seconds } from "../../escalation/setup.ts";
import { obedientChannels, SENT } from "../../support/obedient-channels.ts";
import { platformOfFile } from "../../support/platform.ts";
import { testServices } from "../../support/services.ts";

// Types that are AT_MOST_ONCE, and channels that do as they are told.
const services = await testServices();
const { clock, step: pass } = steppedClock();
const { channels, answerWith, given, of } = obedientChannels();
const node = await platformOfFile({ services, clock, between: { channels } });
const { key } = node;
const { newUser, send, get, told, reached } = escalating(node);
await key.types.createType({ type: { key: "once", deliveryMode: DeliveryMode.AT_MOST_ONCE } });
const once = { type: "once", channels: [Channel.EMAIL] };
const UNKNOWN = { status: Status.FAILED, reason: Reason.OUTCOME_UNKNOWN };

async function broken(): Promise<never> {
  throw new Error("the line was cut");
}

/** What is due within ten minutes has been taken when this is: steps of escalations, and hand-overs. */
async function tenMinutesOn(): Promise<void> {
  const steps = [{ channel: Channel.PUSH, after: seconds(600) }];
  const id = await send(newUser(), { channels: [Channel.IN_APP], escalation: { steps } });
  pass(10 * MINUTE);
  await told(id, ({ step }) => step === 1);
}

test.each<[string, () => Promise<Outcome>]>([
  ["throws", broken],
  ["says so itself", async () => ({ kind: "unknown", cause: "a gateway's time-out" })],
])("what came of it is unknown where the channel %s, and it is not given it again", async (_, does) => {
  answerWith(does);
  const id = await send(newUser(), once);
  expect(await reached(id, Status.FAILED)).toMatchObject(UNKNOWN);
  answerWith(SENT);
  await tenMinutesOn();
  expect(of(id)).toEqual([Channel.EMAIL]);
});

test("what a channel has not taken is tried again, with the same key", async () => {
  let refusals = 0;
  answerWith(async () => (refusals++ < 1 ? { kind: "retry", cause: "busy" } : { kind: "sent" }));
  const id = await send(newUser(), once);
  await told(id, () => of(id).length === 1);
  pass(MINUTE);
  await reached(id, Status.DELIVERED);
  expect(of(id)).toEqual([Channel.EMAIL, Channel.EMAIL]);
  expect(new Set(given.filter((each) => each.notificationId === id).map((each) => each.idempotencyKey)).size).toBe(1);
});

test("what is in the inbox stays delivered, and the verdict of the channel is UNKNOWN", async () => {
  answerWith(broken);
  const id = await send(newUser(), { type: "once", channels: [Channel.IN_APP, Channel.EMAIL] });
  await told(id, ({ reason }) => reason === Reason.OUTCOME_UNKNOWN);
  const { status, verdicts } = await get(id);
  expect(status).toBe(Status.DELIVERED);
  expect(verdicts).toMatchObject([
    { channel: Channel.IN_APP, kind: VerdictKind.DELIVER },
    { channel: Channel.EMAIL, kind: VerdictKind.UNKNOWN, reason: Reason.OUTCOME_UNKNOWN },
  ]);
});

test.each([Channel.EMAIL, Channel.PUSH])(
  "it may have come where one channel refused it and of another nobody knows, whichever is told last: %i",
  async (last) => {
    const turn = Promise.withResolvers<void>();
    answerWith(async ({ channel }) => {
      if (channel === last) await turn.promise;
      return channel === Channel.EMAIL ? broken() : { kind: "rejected", cause: "no such device" };
    });
    const steps = [{ channel: Channel.SMS, after: seconds(3600) }];
    const id = await send(newUser(), { type: "once", channels: [Channel.EMAIL, Channel.PUSH], escalation: { steps } });
    await told(id, ({ channel }) => channel !== Channel.UNSPECIFIED && channel !== last);
    turn.resolve();
    await told(id, ({ channel }) => channel === last);
    answerWith(async () => ({ kind: "rejected", cause: "no such number" }));
    // The step has its own time: it is not as if none had come.
    await tenMinutesOn();
    expect(of(id)).not.toContain(Channel.SMS);
    pass(60 * MINUTE);
    await told(id, ({ step }) => step === 1);
    pass(60 * MINUTE);
    expect(await reached(id, Status.FAILED)).toMatchObject(UNKNOWN);
  },
);

test("the step after one of which nobody knows is taken when it is due, and not before", async () => {
  answerWith(async ({ channel }) => (channel === Channel.EMAIL ? broken() : { kind: "sent" }));
  const steps = [
    { channel: Channel.EMAIL, after: seconds(60) },
    { channel: Channel.SMS, after: seconds(3600) },
  ];
  const id = await send(newUser(), { type: "once", channels: [Channel.IN_APP], escalation: { steps } });
  pass(MINUTE);
  await told(id, ({ step, reason }) => step === 1 && reason === Reason.OUTCOME_UNKNOWN);
  await tenMinutesOn();
  expect(of(id)).toEqual([Channel.EMAIL]);
  pass(60 * MINUTE);
  await told(id, ({ step, status }) => step === 2 && status === Status.DELIVERED);
  expect(of(id)).toEqual([Channel.EMAIL, Channel.SMS]);
});

test("a mode that is changed counts for what is decided after", async () => {
  const type = { key: "changing", defaultChannels: [Channel.EMAIL] };
  await key.types.createType({ type });
  let refusals = 0;
  answerWith(async () => (refusals++ < 1 ? { kind: "retry", cause: "busy" } : broken()));
  const before = await send(newUser(), { type: "changing" });
  await told(before, () => of(before).length === 1);
  await key.types.updateType({ type: { ...type, deliveryMode: DeliveryMode.AT_MOST_ONCE } });
  const after = await send(newUser(), { type: "changing" });
  expect(await reached(after, Status.FAILED)).toMatchObject(UNKNOWN);
  pass(MINUTE);
  await told(before, () => of(before).length === 2);
  answerWith(SENT);
  pass(MINUTE);
  await reached(before, Status.DELIVERED);
  expect(of(after)).toHaveLength(1);
});
