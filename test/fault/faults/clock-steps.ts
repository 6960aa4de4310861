import { setTimeout as delay } from "node:timers/promises";
import type { MessageInitShape } from "@bufbuild/protobuf";
import { Priority, Status } from "#gen/posthorn/v1/notification_pb.ts";
import { PreferencesService } from "#gen/posthorn/v1/preferences_service_pb.ts";
import { type SendRequestSchema, SendService } from "#gen/posthorn/v1/send_service_pb.ts";
import { until } from "../../support/until.ts";
import { type Connection, connectTo } from "../lab/connection.ts";
import { nodeHere } from "../lab/here.ts";
import type { FaultTest, Lab } from "../lab/lab.ts";
import { openLedger, PromisesBroken } from "../lab/ledger.ts";
import { type Random, seededRandom } from "../lab/random.ts";

const HOUR = 3_600_000;
const MINUTE = 60_000;

/**
 * The clocks of two nodes jump, together and apart, by seconds and by hours, forward and back, while notifications are
 * scheduled, held and deduplicated and streams are open. What is due by any of the clocks may go; nothing may go twice, be
 * forgotten, or be numbered out of order.
 */
export const clockSteps: FaultTest = {
  name: "clock-steps",
  about: "the clocks of two nodes jump forward and back while work is scheduled, held and deduplicated",
  alone: true,
  async run(lab, { seed, scale }) {
    const random = seededRandom(seed);
    const offsets = [0, 0];
    const clockOf = (n: number) => () => new Date(Date.now() + (offsets[n] ?? 0));
    const first = lab.use(await nodeHere("first", lab.services, { clock: clockOf(0) }));
    const second = lab.use(await nodeHere("second", lab.services, { clock: clockOf(1) }));
    const site = { nodes: [first, second], ...(await first.bootstrap()) };
    const another = await first.bootstrap();
    const client = lab.use(connectTo(first.address, another.apiKey));
    const step = (ms: number) => offsets.fill((offsets[0] ?? 0) + ms);
    const now = clockOf(0);

    await keepsItsWord(lab, client, step, now);
    const users = Math.max(10, Math.round(200 * scale));
    const ledger = await openLedger(lab, site, { seed, users, now });
    const steps = Math.max(4, Math.round(40 * scale));
    const stepping = stepAbout(random, offsets, steps);
    await ledger.send(Math.round(10_000 * scale), stepping);
    await stepping;
    // Whatever was scheduled by a clock that was ahead is due now.
    offsets.fill(Math.max(...offsets) + 6 * HOUR);
    return { steps, ...(await ledger.verify()) };
  },
};

/** Each promise that hangs on a time, over jumps of hours in both directions. */
async function keepsItsWord(lab: Lab, client: Connection, step: (ms: number) => void, now: () => Date): Promise<void> {
  const broken: string[] = [];
  const send = async (request: MessageInitShape<typeof SendRequestSchema>) => {
    const { results } = await client.call(SendService.method.send, request);
    return results[0] ?? { notificationId: "", deduplicated: false };
  };
  const statusIs = async (id: string, wanted: readonly number[], why: string) => {
    const ask = async () =>
      (await lab.sql<{ status: number }[]>`select status from notifications where id = ${id}`)[0]?.status ?? 0;
    await until(ask, (status) => wanted.includes(status)).catch(async () =>
      broken.push(`${why}: it is in status ${await ask()}`),
    );
  };
  const inAnHour = { seconds: BigInt(Math.floor((now().getTime() + HOUR) / 1000)) };
  const quiet = { enabled: true, startTime: clockTime(now(), -HOUR), endTime: clockTime(now(), HOUR) };
  await client.call(PreferencesService.method.updatePreferences, {
    userId: "sleeper",
    reason: "a test of clocks",
    preferences: { quietHours: quiet },
  });

  const content = { title: "Clock" };
  const keyed = {
    content,
    to: { userIds: ["keyed"] },
    idempotencyKey: "once",
    dedupKey: "one",
    dedupWindow: { seconds: 600n },
  };
  const schedule = { case: "scheduleTime" as const, value: inAnHour };
  const collapsing = { content, to: { userIds: ["collapser"] }, collapseKey: "latest", schedule };
  const [first, scheduled, collapsed, held] = await Promise.all([
    send(keyed),
    send({ content, to: { userIds: ["planner"] }, schedule }),
    send(collapsing),
    send({ content, to: { userIds: ["sleeper"] }, priority: Priority.NORMAL }),
  ]);
  await statusIs(scheduled.notificationId, [Status.SCHEDULED], "scheduled for the next hour");
  await statusIs(held.notificationId, [Status.HELD], "sent in quiet hours");

  step(-2 * HOUR);
  if ((await send(keyed)).notificationId !== first.notificationId) broken.push("a repeat was sent after a step back");
  if (!(await send({ ...keyed, idempotencyKey: "" })).deduplicated) broken.push("a step back forgot a dedup key");
  await send(collapsing);
  await statusIs(collapsed.notificationId, [Status.CANCELLED], "its place was taken after a step back");

  step(2 * HOUR + 11 * MINUTE);
  if ((await send(keyed)).notificationId !== first.notificationId)
    broken.push("a repeat was sent after a step forward");
  if ((await send({ ...keyed, idempotencyKey: "" })).deduplicated) broken.push("a dedup key outlived its window");
  await statusIs(scheduled.notificationId, [Status.SCHEDULED], "not yet due");

  step(2 * HOUR);
  await statusIs(scheduled.notificationId, [Status.DELIVERED], "due after a step forward");
  await statusIs(held.notificationId, [Status.DELIVERED], "its quiet hours are over after a step forward");

  step(-3 * HOUR);
  const after = await send({ content, to: { userIds: ["planner"] } });
  await statusIs(after.notificationId, [Status.DELIVERED], "sent after a step back");
  await statusIs(scheduled.notificationId, [Status.DELIVERED], "delivered before a step back");
  if (broken.length > 0) throw new PromisesBroken(broken);
}

/** Jumps of seconds apart and of hours together, so that the nodes never disagree by more than real ones do. */
async function stepAbout(random: Random, offsets: number[], steps: number): Promise<void> {
  for (let n = 0; n < steps; n++) {
    await delay(random.int(50, 400));
    const ms = random.int(-2 * HOUR, 2 * HOUR);
    const apart = random.int(-2000, 2000);
    offsets[0] = (offsets[0] ?? 0) + ms;
    offsets[1] = offsets[0] + apart;
  }
}

function clockTime(at: Date, plusMs: number): string {
  return new Date(at.getTime() + plusMs).toISOString().slice(11, 16);
}
