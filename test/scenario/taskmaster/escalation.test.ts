import type { DescEnum } from "@bufbuild/protobuf";
import { expect, test } from "vitest";
import {
  Channel,
  ChannelSchema,
  Priority,
  Reason,
  ReasonSchema,
  Status,
  StatusSchema,
  type TimelineEntry,
  VerdictKind,
} from "#gen/posthorn/v1/notification_pb.ts";
import { sinkFolder } from "../../escalation/setup.ts";
import { until } from "../../support/until.ts";
import { shown, taskmaster } from "./setup.ts";

// What is critical has to be confirmed where the user wishes it, and comes by e-mail and SMS until it is. 1 March 2027 is a
// Monday.
const sink = await sinkFolder();
const story = await taskmaster("2027-03-01T09:00Z", { env: sink.env });
const { key, send, goTo, get, prefer, balance } = story;

const critical = { priority: Priority.CRITICAL };
const delivery = { fallbacks: [Channel.EMAIL, Channel.SMS], confirmationRequired: true };
const minutes = (n: number) => ({ seconds: BigInt(n * 60) });

/** What the user was sent by a channel: the notifications' ids. */
const by = async (channel: string, userId: string) =>
  (await sink.sunk(channel)).filter((line) => line.userId === userId).map(({ notificationId }) => notificationId);
const timelineOf = async (id: string) => (await key().send.getNotification({ id })).timeline;
const tells = (id: string, good: (entry: TimelineEntry) => boolean) =>
  until(
    () => timelineOf(id),
    (timeline) => timeline.some(good),
  );
const came = (id: string, channel: Channel) =>
  tells(id, (entry) => entry.channel === channel && entry.status === Status.DELIVERED);
const name = ({ values }: DescEnum, number: number) => values.find((value) => value.number === number)?.localName;
/** The history as a line each: when, what, and who did it. */
const historyOf = async (id: string) =>
  (await timelineOf(id)).map(({ time, status, channel, reason, confirmed, step, actor }) => {
    const what = confirmed
      ? `confirmed by ${actor}`
      : reason !== Reason.UNSPECIFIED
        ? name(ReasonSchema, reason)
        : `${name(StatusSchema, status)}${channel === 0 ? "" : ` ${name(ChannelSchema, channel)}`}`;
    return `${shown(time).slice(11)} ${what}${step === 0 ? "" : `, step ${step}`}`;
  });

test("what is critical comes by e-mail too when it was read but not confirmed, and by nothing more when it was", async () => {
  const ann = await story.user("ann");
  await prefer("ann", { delivery });
  const { notificationId: id } = await send("ann", "TASK_OVERDUE", "The server room is hot", critical);
  const { entry } = await ann.inbox.getEntry({ notificationId: id });
  expect(entry).toMatchObject({ confirmationRequired: true });
  expect(entry?.confirmTime).toBeUndefined();
  await goTo("2027-03-01T09:02Z");
  await ann.inbox.markRead({ notificationIds: [id] });
  await goTo("2027-03-01T09:05Z");
  await came(id, Channel.EMAIL);
  await goTo("2027-03-01T09:07Z");
  const { confirmTime } = await ann.inbox.confirmEntry({ notificationId: id });
  expect(shown(confirmTime)).toBe("2027-03-01T09:07Z");
  expect(await historyOf(id)).toEqual([
    "09:00Z ACCEPTED",
    "09:00Z DELIVERED IN_APP",
    "09:02Z READ IN_APP",
    "09:05Z DELIVERED EMAIL, step 1",
    "09:07Z confirmed by user:ann",
  ]);
});

test("what is less than critical asks for nothing", async () => {
  const { notificationId: id } = await send("ann", "TASK_OVERDUE", "Water the plants", {
    priority: Priority.HIGH,
    batchable: false,
  });
  const ann = await story.user("ann");
  expect((await ann.inbox.getEntry({ notificationId: id })).entry?.confirmationRequired).toBe(false);
});

test("nobody answers: after e-mail and SMS the history says so, and a late confirmation is still noted", async () => {
  await prefer("ben", { delivery });
  const { notificationId: id } = await send("ben", "TASK_OVERDUE", "The server room is hot", critical);
  await goTo("2027-03-01T09:12Z");
  await came(id, Channel.EMAIL);
  await goTo("2027-03-01T09:17Z");
  await came(id, Channel.SMS);
  await goTo("2027-03-01T09:22Z");
  await tells(id, ({ reason }) => reason === Reason.CONFIRMATION_MISSING);
  const { notification } = await key().send.confirmNotification({ id, reason: "answered YES by SMS" });
  expect(notification).toMatchObject({ status: Status.READ });
  const history = await historyOf(id);
  expect(history.slice(0, 5)).toEqual([
    "09:07Z ACCEPTED",
    "09:07Z DELIVERED IN_APP",
    "09:12Z DELIVERED EMAIL, step 1",
    "09:17Z DELIVERED SMS, step 2",
    "09:22Z CONFIRMATION_MISSING",
  ]);
  expect(history.slice(5).filter((line) => line.includes("confirmed by key:"))).toHaveLength(1);
  const { entries } = await key().admin.listAuditEntries({});
  expect(entries[0]).toMatchObject({ action: "notification.confirm", reason: "answered YES by SMS" });
});

test("of two devices that confirm side by side the first counts, and what is due in that moment may be the last", async () => {
  await prefer("cleo", { delivery });
  const { notificationId: id } = await send("cleo", "TASK_OVERDUE", "The server room is hot", critical);
  const phone = await story.user("cleo");
  const operator = key();
  const [own, forHer] = await Promise.all([
    phone.inbox.confirmEntry({ notificationId: id }),
    operator.send.confirmNotification({ id, reason: "called back" }),
  ]);
  expect(own.confirmTime).toEqual(forHer.notification?.confirmTime);
  expect((await timelineOf(id)).filter(({ confirmed }) => confirmed)).toHaveLength(1);
});

test("without a confirmation asked for reading is an answer; and who sends can call it off", async () => {
  const escalation = { steps: [{ channel: Channel.EMAIL, after: minutes(5) }] };
  const read = (await send("dora", "TASK_ASSIGNED", "Read", { escalation })).notificationId;
  const off = (await send("dora", "TASK_ASSIGNED", "Called off", { escalation })).notificationId;
  const open = (await send("dora", "TASK_ASSIGNED", "Open", { escalation })).notificationId;
  const dora = await story.user("dora");
  await dora.inbox.markRead({ notificationIds: [read] });
  expect(await key().send.cancelEscalation({ id: off })).toMatchObject({ cancelled: true });
  await goTo("2027-03-01T09:27Z");
  await came(open, Channel.EMAIL);
  expect(await by("email", "dora")).toEqual([open]);
  expect((await historyOf(off)).at(-1)).toBe("09:22Z CANCELLED");
});

test("at night a step waits for the morning, but what is critical does not", async () => {
  await prefer("eve", { quietHours: { enabled: true }, delivery });
  const escalation = { steps: [{ channel: Channel.SMS, after: minutes(10) }] };
  await goTo("2027-03-01T21:55Z");
  const usual = (await send("eve", "TASK_ASSIGNED", "Call Bob", { escalation })).notificationId;
  const urgent = (await send("eve", "TASK_OVERDUE", "Fire", critical)).notificationId;
  await goTo("2027-03-01T22:05Z");
  await came(urgent, Channel.EMAIL);
  const held = await tells(usual, ({ reason }) => reason === Reason.QUIET_HOURS);
  const [verdict] = held.at(-1)?.verdicts ?? [];
  expect(verdict).toMatchObject({ channel: Channel.SMS, kind: VerdictKind.HOLD });
  expect(shown(verdict?.until)).toBe("2027-03-02T08:00Z");
  await key().send.confirmNotification({ id: urgent, reason: "answered by phone" });
  await goTo("2027-03-02T08:00Z");
  await came(usual, Channel.SMS);
  expect(await by("sms", "eve")).toEqual([usual]);
  expect((await get(urgent)).confirmTime).toBeDefined();
});

test("in the end everybody got what they had not answered, once, and nothing else", async () => {
  // Hours after the last that was open.
  await goTo("2027-03-02T12:00Z");
  expect((await by("email", "ann")).length).toBe(1);
  expect([await by("sms", "ann"), await by("email", "cleo"), await by("sms", "cleo")]).toEqual([[], [], []]);
  for (const channel of ["email", "sms"]) {
    const keys = (await sink.sunk(channel)).map(({ idempotencyKey }) => idempotencyKey);
    expect(new Set(keys).size).toBe(keys.length);
  }
  await balance();
});
