import { expect, test } from "vitest";
import { Channel, Reason, Status } from "#gen/posthorn/v1/notification_pb.ts";
import { MINUTE } from "../batches/setup.ts";
import type { Failpoint } from "../fault/lab/failpoints.ts";
import { faultNode } from "../fault/lab/node.ts";
import { platformOfFile, startTestPlatform } from "../support/platform.ts";
import { testServices } from "../support/services.ts";
import { until } from "../support/until.ts";
import { escalating, seconds, sinkFolder } from "./setup.ts";

// A process that takes steps is killed (SIGKILL) at one point of its way. Who sends lives an hour ago, so that the step is
// due for it at once; who comes after it lives later than its lease.
const services = await testServices();
const sink = await sinkFolder();
const earlier = await platformOfFile({
  services,
  env: sink.env,
  roles: ["api", "stream", "worker"],
  clock: () => new Date(Date.now() - 60 * MINUTE),
});
const { newUser, send, get } = escalating(earlier);

const steps = [
  { channel: Channel.EMAIL, after: seconds(60) },
  { channel: Channel.SMS, after: seconds(86_400) },
];

const POINTS: [point: Failpoint, where: string, mails: number][] = [
  ["escalate:before-commit", "before it has taken the step", 1],
  ["escalate:after-commit", "when it has taken the step", 1],
  ["claim:after-commit", "between the claim and the hand-over", 1],
  ["hand-over:after", "between the hand-over and the note of it", 2],
  ["note:before-commit", "before the note of it is committed", 2],
  ["note:after-commit", "when all is done", 1],
];

test.each(POINTS)(
  "killed at %s, %s: the step is taken once, one key for the channel, and the escalation goes on",
  async (point, _, mails) => {
    await using killed = await faultNode("killed", services, {
      ...sink.env,
      POSTHORN_ENV: "development",
      POSTHORN_ROLES: "scheduler",
    });
    const id = await send(newUser(), { escalation: { steps } });
    await killed.start({ failAt: { by: "SIGKILL", points: [{ point, pass: 1 }] } });
    expect(await killed.exited()).toMatchObject({ signal: "SIGKILL" });

    let ahead = 5 * MINUTE;
    const clock = () => new Date(Date.now() + ahead);
    const options = { services, clock, env: sink.env, tenant: earlier.tenant };
    await using _survivor = await startTestPlatform({ ...options, roles: ["scheduler"] });
    await outcome(id, ({ channel }) => channel === Channel.EMAIL);
    ahead += 25 * 60 * MINUTE;
    await outcome(id, ({ channel }) => channel === Channel.SMS);
    ahead += 25 * 60 * MINUTE;
    await outcome(id, ({ reason }) => reason === Reason.CONFIRMATION_MISSING);
    const told = (await get(id)).timeline.filter(({ step }) => step > 0);
    expect(told.map(({ step, channel, status }) => [step, channel, status])).toEqual([
      [1, Channel.EMAIL, Status.DELIVERED],
      [2, Channel.SMS, Status.DELIVERED],
    ]);
    const keys = async (channel: string) => (await sink.of(channel, id)).map(({ idempotencyKey }) => idempotencyKey);
    expect(await keys("email")).toEqual(Array.from({ length: mails }, () => `${id}:1:${Channel.EMAIL}`));
    expect(await keys("sms")).toEqual([`${id}:2:${Channel.SMS}`]);
  },
  120_000,
);

function outcome(id: string, good: (entry: { channel: Channel; step: number; reason: Reason }) => boolean) {
  return until(
    () => get(id),
    ({ timeline }) => timeline.some((entry) => (entry.step > 0 || entry.reason !== Reason.UNSPECIFIED) && good(entry)),
  );
}
