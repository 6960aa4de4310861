import { expect, test } from "vitest";
import { Channel, Reason, Status, VerdictKind } from "#gen/posthorn/v1/notification_pb.ts";
import { DeliveryMode } from "#gen/posthorn/v1/type_service_pb.ts";
import { MINUTE } from "../../batches/setup.ts";
import { escalating, seconds, sinkFolder } from "../../escalation/setup.ts";
import type { Failpoint } from "../../fault/lab/failpoints.ts";
import { faultNode } from "../../fault/lab/node.ts";
import { platformOfFile, startTestPlatform } from "../../support/platform.ts";
import { testServices } from "../../support/services.ts";

// A process that hands over is killed (SIGKILL) at one point of its way; who comes after it lives later than its lease.
const services = await testServices();
const sink = await sinkFolder();
const first = await platformOfFile({ services, env: sink.env, roles: ["api", "stream", "worker"] });
const { key } = first;
const { newUser, send, get, told, reached } = escalating(first);
for (const [type, deliveryMode] of [
  ["once", DeliveryMode.AT_MOST_ONCE],
  ["again", DeliveryMode.AT_LEAST_ONCE],
] as const)
  await key.types.createType({ type: { key: type, deliveryMode, defaultChannels: [Channel.EMAIL] } });

async function killAt(point: Failpoint): Promise<void> {
  await using killed = await faultNode("killed", services, {
    ...sink.env,
    POSTHORN_ENV: "development",
    POSTHORN_ROLES: "scheduler",
  });
  await killed.start({ failAt: { by: "SIGKILL", points: [{ point, pass: 1 }] } });
  expect(await killed.exited()).toMatchObject({ signal: "SIGKILL" });
}

function survivor() {
  const ahead = { ms: 5 * MINUTE };
  const clock = () => new Date(Date.now() + ahead.ms);
  const options = { services, clock, env: sink.env, tenant: first.tenant, roles: ["scheduler"] as const };
  return { ahead, started: () => startTestPlatform({ ...options, roles: [...options.roles] }) };
}

const UNKNOWN = [Status.FAILED, Reason.OUTCOME_UNKNOWN] as const;
const CAME = [Status.DELIVERED, Reason.UNSPECIFIED] as const;

const CASES: [type: string, point: Failpoint, mails: number, end: readonly [Status, Reason]][] = [
  // Not given yet: in either mode the next gives it.
  ["once", "claim:after-commit", 1, CAME],
  ["again", "claim:after-commit", 1, CAME],
  ["once", "give:before-commit", 1, CAME],
  // Noted as given, and then nobody knows.
  ["once", "give:after-commit", 0, UNKNOWN],
  ["once", "hand-over:after", 1, UNKNOWN],
  ["again", "hand-over:after", 2, CAME],
  ["once", "note:before-commit", 1, UNKNOWN],
  ["again", "note:before-commit", 2, CAME],
  ["once", "note:after-commit", 1, CAME],
];

test.each(CASES)(
  "of type %s, killed at %s, it was given %i times with one key, and ends so",
  async (type, point, mails, [status, reason]) => {
    const id = await send(newUser(), { type });
    await killAt(point);
    await using _survivor = await survivor().started();
    expect(await reached(id, status)).toMatchObject({ status, reason });
    const keys = (await sink.of("email", id)).map(({ idempotencyKey }) => idempotencyKey);
    expect(keys).toEqual(Array.from({ length: mails }, () => `${id}:0:${Channel.EMAIL}`));
    const { timeline } = await get(id);
    const verdicts = timeline
      .filter(({ channel }) => channel === Channel.EMAIL)
      .map(({ verdicts }) => verdicts[0]?.kind);
    expect(verdicts).toEqual([status === Status.DELIVERED ? VerdictKind.DELIVER : VerdictKind.UNKNOWN]);
  },
  120_000,
);

test("an escalation goes on from a step of which nobody knows when the next is due, and not before", async () => {
  const steps = [
    { channel: Channel.SMS, after: seconds(10) },
    { channel: Channel.PUSH, after: seconds(3600) },
  ];
  const id = await send(newUser(), { type: "once", channels: [Channel.IN_APP], escalation: { steps } });
  const { ahead, started } = survivor();
  {
    // Takes the step, five minutes from now, and dies when it has handed it over.
    await using killed = await faultNode("stepping", services, {
      ...sink.env,
      POSTHORN_ENV: "development",
      POSTHORN_ROLES: "scheduler",
    });
    await killed.start({ failAt: { by: "SIGKILL", points: [{ point: "hand-over:after", pass: 1 }] } });
    expect(await killed.exited()).toMatchObject({ signal: "SIGKILL" });
  }
  await using _survivor = await started();
  await told(id, ({ step, reason }) => step === 1 && reason === Reason.OUTCOME_UNKNOWN);
  expect(await sink.of("push", id)).toEqual([]);
  ahead.ms += 2 * 60 * MINUTE;
  await told(id, ({ step, status }) => step === 2 && status === Status.DELIVERED);
  expect(await sink.of("sms", id)).toHaveLength(1);
  const { timeline } = await key.send.explainNotification({ id });
  const unknown = timeline.find(({ entry }) => entry?.reason === Reason.OUTCOME_UNKNOWN);
  expect(unknown?.entry).toMatchObject({ step: 1, channel: Channel.SMS, verdicts: [{ kind: VerdictKind.UNKNOWN }] });
  expect(unknown?.decision).toBeUndefined();
}, 120_000);

test("who stood still before the hand-over leaves it to whoever has claimed it since", async () => {
  const settings = { ...sink.env, POSTHORN_ENV: "development", POSTHORN_ROLES: "scheduler" };
  await using still = await faultNode("still", services, settings);
  await still.start({ failAt: { by: "SIGSTOP", points: [{ point: "give:before-write", pass: 1 }] } });
  // It has begun with everything that it does by then.
  await reached(await send(newUser(), { type: "again" }), Status.DELIVERED);
  const id = await send(newUser(), { type: "once" });
  await still.stopped();
  {
    await using _survivor = await survivor().started();
    await reached(id, Status.DELIVERED);
  }
  still.resume();
  // It goes on with what it had at hand before it takes what comes now.
  await reached(await send(newUser(), { type: "once" }), Status.DELIVERED);
  expect(await sink.of("email", id)).toHaveLength(1);
}, 120_000);
