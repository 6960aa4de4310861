import postgres from "postgres";
import { afterAll, describe, expect, test } from "vitest";
import { Channel, Priority, Reason, Status } from "#gen/posthorn/v1/notification_pb.ts";
import type { Channels, Message, Outcome } from "#src/channels/channel.ts";
import { ChainState } from "#src/escalation/state.ts";
import { MINUTE, steppedClock } from "../batches/setup.ts";
import { platformOfFile } from "../support/platform.ts";
import { wrongInAppCounters, wrongInboxes } from "../support/recount.ts";
import { testServices } from "../support/services.ts";
import { until } from "../support/until.ts";
import { escalating, seconds, stoppableTakings } from "./setup.ts";

// Two nodes with schedulers of their own, and a channel that remembers what it was given and does as it is told.
const services = await testServices();
const { clock, step: pass } = steppedClock();
const taken: Message[] = [];
let answer: (message: Message) => Promise<Outcome> = async () => ({ kind: "sent" });
const channels = (): Channels =>
  new Map(
    [Channel.EMAIL, Channel.SMS].map((channel) => [
      channel,
      {
        deliver: async (message: Message) => {
          taken.push(message);
          return answer(message);
        },
      },
    ]),
  );
const takings = stoppableTakings();
const between = { channels, store: takings.store };
const a = await platformOfFile({ services, clock, between });
const b = await platformOfFile({ services, clock, between, tenant: a.tenant });
const onB = b.clients(a.tenant.apiKey);
const { newUser, send, get, prefer, told, reached } = escalating(a);
const sql = postgres(services.databaseUrl, { max: 2, onnotice: () => undefined });
afterAll(async () => {
  expect(await wrongInboxes(sql)).toEqual([]);
  expect(await wrongInAppCounters(sql)).toEqual([]);
  await sql.end();
});

const one = { steps: [{ channel: Channel.EMAIL, after: seconds(60) }] };
const two = { steps: [...one.steps, { channel: Channel.SMS, after: seconds(60) }] };
const of = (id: string) => taken.filter(({ notificationId }) => notificationId === id);
const stateOf = async (id: string) =>
  (await sql<{ state: number }[]>`select state from escalations where notification_id = ${id}`)[0]?.state;

const turnIn = async (id: string) => {
  const [row] = await sql<
    { turnAt: Date }[]
  >`select turn_at as "turnAt" from escalations where notification_id = ${id}`;
  return (row?.turnAt.getTime() ?? 0) - clock().getTime();
};

test("each step is taken once, and nothing after the first answer, whoever reads, confirms or is due at once", async () => {
  const users = Array.from({ length: 40 }, newUser);
  const ids = await Promise.all(
    users.map((user, n) => send(user, { escalation: { ...two, confirmationRequired: n % 3 === 0 } })),
  );
  pass(MINUTE);
  await Promise.all(
    ids.map(async (id, n) => {
      const [key, other] = n % 2 === 0 ? [a.key, onB] : [onB, a.key];
      const read = () => key.inbox.markRead({ userId: users[n] ?? "", notificationIds: [id] });
      const confirm = () => other.send.confirmNotification({ id, reason: "a race" });
      await new Promise((resolve) => setTimeout(resolve, (n % 10) * 20));
      await Promise.all(n % 4 === 0 ? [read(), confirm(), confirm()] : n % 4 === 1 ? [confirm(), read()] : [read()]);
    }),
  );
  const answered = await Promise.all(ids.map(stateOf));
  const before = ids.map((id) => of(id).length);
  // Those that only a confirmation stops, and nobody confirmed, go on; all others have ended.
  expect(answered).toEqual(
    ids.map((_, n) => {
      if (n % 4 <= 1)
        return expect.toSatisfy(
          (state) => state === ChainState.CONFIRMED || (n % 3 !== 0 && state === ChainState.READ),
        );
      return n % 3 === 0 ? ChainState.WAITING : ChainState.READ;
    }),
  );
  pass(MINUTE);
  await until(
    async () => ids.filter((id, n) => n % 4 > 1 && n % 3 === 0 && of(id).length < 2),
    (late) => late.length === 0,
  );
  for (const [n, id] of ids.entries()) {
    const keys = of(id).map(({ idempotencyKey }) => idempotencyKey);
    expect(new Set(keys).size, "no step twice").toBe(keys.length);
    // A hand-over may have been under way, but no new step begins.
    if (answered[n] !== ChainState.WAITING) expect(keys.length).toBeLessThanOrEqual(1);
    const { timeline } = await get(id);
    if (before[n] === 0 && answered[n] !== ChainState.WAITING)
      expect(timeline.filter(({ step }) => step === 2)).toEqual([]);
    expect(timeline.filter(({ confirmed }) => confirmed)).toHaveLength(n % 4 <= 1 ? 1 : 0);
  }
}, 90_000);

test("a step that one node is taking is left alone by the other, which goes on with the rest", async () => {
  const user = newUser();
  await prefer(user, { channels: { email: false } });
  const id = await send(user, { escalation: two });
  const later = await send(newUser(), { escalation: { steps: [{ channel: Channel.EMAIL, after: seconds(120) }] } });
  const { reached, release } = takings.stop("uncommitted");
  pass(MINUTE);
  await reached;
  pass(MINUTE);
  await told(later, ({ step, status }) => step === 1 && status === Status.DELIVERED);
  release();
  await told(id, ({ step, status }) => step === 2 && status === Status.DELIVERED);
  expect((await get(id)).timeline.filter(({ step }) => step > 0).map(({ step, reason }) => [step, reason])).toEqual([
    [1, Reason.CHANNEL_DISABLED],
    [2, Reason.UNSPECIFIED],
  ]);
});

describe("a channel", () => {
  test("that does not take it is tried again, with the same key", async () => {
    let failures = 0;
    answer = async ({ channel }) =>
      channel === Channel.EMAIL && failures++ < 2 ? { kind: "retry", cause: "busy" } : { kind: "sent" };
    const id = await send(newUser(), { channels: [Channel.EMAIL] });
    await until(
      async () => {
        pass(1_000);
        return of(id).length;
      },
      (times) => times >= 3,
    );
    await reached(id, Status.DELIVERED);
    expect(new Set(of(id).map(({ idempotencyKey }) => idempotencyKey)).size).toBe(1);
    answer = async () => ({ kind: "sent" });
  });

  test.each([
    ["the channel", { channels: { email: false } }, Reason.CHANNEL_DISABLED],
    ["everything", { enabled: false }, Reason.USER_OPTED_OUT],
    ["its priority", { minimumPriority: Priority.HIGH }, Reason.BELOW_MINIMUM_PRIORITY],
  ])("is not asked again once its user has switched off %s, wherever else it has come", async (_, wish, reason) => {
    answer = async () => ({ kind: "retry", cause: "busy" });
    const [user, other] = [newUser(), newUser()];
    const alone = await send(user, { channels: [Channel.EMAIL] });
    const both = await send(user, { channels: [Channel.IN_APP, Channel.EMAIL] });
    const wanted = await send(other, { channels: [Channel.EMAIL] });
    await until(
      async () => [alone, both, wanted].filter((id) => of(id).length === 0),
      (missing) => missing.length === 0,
    );
    await prefer(user, wish);
    const before = [of(alone).length, of(both).length];
    answer = async () => ({ kind: "sent" });
    // Past its next turn, and that of one that is still wanted.
    pass(2 * MINUTE);
    await reached(wanted, Status.DELIVERED);
    expect(await reached(alone, Status.SUPPRESSED)).toMatchObject({ reason });
    await told(both, (entry) => entry.channel === Channel.EMAIL && entry.reason === reason);
    expect((await get(both)).status).toBe(Status.DELIVERED);
    expect([of(alone).length, of(both).length]).toEqual(before);
  });

  test("is not asked again once its user no longer wants there what goes to the inbox; who asked for it is", async () => {
    answer = async () => ({ kind: "retry", cause: "busy" });
    const user = newUser();
    await prefer(user, { delivery: { method: Channel.EMAIL } });
    const added = await send(user, { channels: [Channel.IN_APP] });
    const asked = await send(user, { channels: [Channel.IN_APP, Channel.EMAIL] });
    await until(
      async () => [added, asked].filter((id) => of(id).length === 0),
      (missing) => missing.length === 0,
    );
    await prefer(user, { delivery: { method: Channel.IN_APP } });
    const before = of(added).length;
    answer = async () => ({ kind: "sent" });
    pass(2 * MINUTE);
    await told(asked, ({ channel, status }) => channel === Channel.EMAIL && status === Status.DELIVERED);
    await told(added, ({ channel, reason }) => channel === Channel.EMAIL && reason === Reason.CHANNEL_DISABLED);
    expect((await get(added)).status).toBe(Status.DELIVERED);
    expect(of(added)).toHaveLength(before);
  });

  test("that its user switches off while it is tried again gives the step's turn to the next", async () => {
    answer = async ({ channel }) => (channel === Channel.EMAIL ? { kind: "retry", cause: "busy" } : { kind: "sent" });
    const user = newUser();
    const steps = [...one.steps, { channel: Channel.SMS, after: seconds(3600) }];
    const id = await send(user, { escalation: { steps } });
    pass(MINUTE);
    await until(
      async () => of(id).length,
      (times) => times > 0,
    );
    await prefer(user, { channels: { email: false } });
    pass(10_000);
    await told(id, ({ step, status }) => step === 2 && status === Status.DELIVERED);
    await told(id, ({ step, reason }) => step === 1 && reason === Reason.CHANNEL_DISABLED);
    answer = async () => ({ kind: "sent" });
  });

  test("that refuses ends what has no other way, and gives a step's turn to the next", async () => {
    answer = async ({ channel }) => (channel === Channel.EMAIL ? { kind: "rejected", cause: "no" } : { kind: "sent" });
    const alone = await send(newUser(), { channels: [Channel.EMAIL] });
    expect(await reached(alone, Status.FAILED)).toMatchObject({ reason: Reason.CHANNEL_UNAVAILABLE });
    const id = await send(newUser(), { escalation: two });
    pass(MINUTE);
    await told(id, ({ channel, status }) => channel === Channel.SMS && status === Status.DELIVERED);
    answer = async () => ({ kind: "sent" });
  });

  test("that refuses what is for outside channels only gives the turn to the first step at once", async () => {
    answer = async ({ channel }) => (channel === Channel.EMAIL ? { kind: "rejected", cause: "no" } : { kind: "sent" });
    const escalation = { steps: [{ channel: Channel.SMS, after: seconds(86_400) }] };
    const last = await send(newUser(), { channels: [Channel.EMAIL], escalation });
    await reached(last, Status.DELIVERED);
    expect(of(last).map(({ step }) => step)).toEqual([0, 1]);
    // Where there is nothing to go on to, nothing is left.
    const none = await send(newUser(), {
      channels: [Channel.EMAIL],
      escalation: { ...one, confirmationRequired: true },
    });
    expect(await reached(none, Status.FAILED)).toMatchObject({ reason: Reason.CHANNEL_UNAVAILABLE });
    // In the inbox it has come: then the step keeps its time.
    const both = await send(newUser(), { channels: [Channel.IN_APP, Channel.EMAIL], escalation });
    await told(both, ({ reason }) => reason === Reason.CHANNEL_UNAVAILABLE);
    expect(await turnIn(both)).toBeGreaterThan(23 * 60 * MINUTE);
    answer = async () => ({ kind: "sent" });
  });

  test("that refuses leaves the first step its time while another may still take it", async () => {
    answer = async ({ channel }) =>
      channel === Channel.EMAIL ? { kind: "rejected", cause: "no" } : { kind: "retry", cause: "busy" };
    const escalation = { steps: [{ channel: Channel.EMAIL, after: seconds(86_400) }] };
    const id = await send(newUser(), { channels: [Channel.EMAIL, Channel.SMS], escalation });
    await told(id, ({ reason }) => reason === Reason.CHANNEL_UNAVAILABLE);
    expect(await turnIn(id)).toBeGreaterThan(23 * 60 * MINUTE);
    answer = async () => ({ kind: "sent" });
    pass(10_000);
    await reached(id, Status.DELIVERED);
    expect(of(id).some(({ step }) => step > 0)).toBe(false);
  });

  test("is handed again what was claimed by a process that was killed before it noted the outcome", async () => {
    const lost = Promise.withResolvers<Outcome>();
    let first = true;
    answer = async ({ channel }) => {
      if (channel !== Channel.EMAIL || !first) return { kind: "sent" };
      first = false;
      return lost.promise;
    };
    const id = await send(newUser(), { escalation: one });
    pass(MINUTE);
    await until(
      async () => of(id).length,
      (times) => times === 1,
    );
    // Whoever holds it is as good as dead; when its minute is over the other node takes it.
    pass(2 * MINUTE);
    await told(id, ({ channel, status }) => channel === Channel.EMAIL && status === Status.DELIVERED);
    expect(of(id).map(({ idempotencyKey }) => idempotencyKey)).toEqual([`${id}:1:2`, `${id}:1:2`]);
    // And if it comes back, it has nothing to say any more.
    lost.resolve({ kind: "rejected", cause: "late" });
    await until(
      () => stateOf(id),
      (state) => state === ChainState.EXHAUSTED,
    );
    const entries = (await get(id)).timeline.filter(({ channel }) => channel === Channel.EMAIL);
    expect(entries.map(({ status }) => status)).toEqual([Status.DELIVERED]);
  });

  test("that answers late, while another is at it, is not heard", async () => {
    const answers = [Promise.withResolvers<Outcome>(), Promise.withResolvers<Outcome>()];
    const held = { id: "", times: 0 };
    answer = async ({ notificationId, channel }) => {
      if (notificationId !== held.id || channel !== Channel.EMAIL) return { kind: "sent" };
      return answers[held.times++]?.promise ?? { kind: "sent" };
    };
    const escalation = { steps: [...one.steps, { channel: Channel.SMS, after: seconds(86_400) }] };
    const id = await send(newUser(), { escalation });
    held.id = id;
    const times = (many: number) =>
      until(
        async () => of(id).length,
        (given) => given === many,
      );
    pass(MINUTE);
    await times(1);
    pass(2 * MINUTE);
    await times(2);
    answers[0]?.resolve({ kind: "rejected", cause: "late" });
    // Whoever had the first is at noting its outcome before this is sent.
    await reached(await send(newUser(), { channels: [Channel.EMAIL] }), Status.DELIVERED);
    expect((await get(id)).timeline.filter(({ step }) => step > 0)).toEqual([]);
    answers[1]?.resolve({ kind: "sent" });
    await told(id, ({ channel, status }) => channel === Channel.EMAIL && status === Status.DELIVERED);
    expect(of(id).map(({ channel }) => channel)).toEqual([Channel.EMAIL, Channel.EMAIL]);
    answer = async () => ({ kind: "sent" });
  });

  test("is not handed again what has been answered meanwhile", async () => {
    answer = async () => ({ kind: "retry", cause: "busy" });
    const id = await send(newUser(), { escalation: one });
    pass(MINUTE);
    await until(
      async () => (await sql`select attempts from hand_overs where notification_id = ${id} and due_at > ${clock()}`)[0],
      (row) => row?.attempts === 1 && of(id).length === 1,
    );
    await a.key.send.confirmNotification({ id, reason: "a test" });
    answer = async () => ({ kind: "sent" });
    pass(MINUTE);
    await until(
      () => sql`select from hand_overs where notification_id = ${id}`,
      (left) => left.length === 0,
    );
    expect(of(id)).toHaveLength(1);
    expect((await get(id)).timeline.filter(({ step }) => step > 0)).toEqual([]);
  });
});

describe("what somebody else has locked keeps nothing else waiting", () => {
  test("when steps are taken", async () => {
    const [locked, free] = [await send(newUser(), { escalation: one }), await send(newUser(), { escalation: one })];
    await sql.begin(async (tx) => {
      await tx`select from notifications where id = ${locked} for update`;
      pass(MINUTE);
      await told(free, ({ step, status }) => step === 1 && status === Status.DELIVERED);
      expect(of(locked)).toEqual([]);
    });
    await told(locked, ({ step, status }) => step === 1 && status === Status.DELIVERED);
    expect([of(locked), of(free)].map((given) => given.length)).toEqual([1, 1]);
  });

  test("when hand-overs are claimed", async () => {
    answer = async () => ({ kind: "retry", cause: "busy" });
    const locked = await send(newUser(), { channels: [Channel.EMAIL] });
    await until(
      () => sql`select from hand_overs where notification_id = ${locked} and attempts = 1 and due_at > ${clock()}`,
      (rows) => rows.length === 1 && of(locked).length === 1,
    );
    answer = async () => ({ kind: "sent" });
    await sql.begin(async (tx) => {
      await tx`select from hand_overs where notification_id = ${locked} for update`;
      pass(MINUTE);
      await reached(await send(newUser(), { channels: [Channel.EMAIL] }), Status.DELIVERED);
      expect(of(locked)).toHaveLength(1);
    });
    await reached(locked, Status.DELIVERED);
    expect(of(locked)).toHaveLength(2);
  });
});
