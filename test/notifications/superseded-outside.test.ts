import { expect, test } from "vitest";
import { Channel, Reason, Status, VerdictKind } from "#gen/posthorn/v1/notification_pb.ts";
import { HOUR } from "../batches/setup.ts";
import { seconds } from "../escalation/setup.ts";
import { BUSY, SENT } from "../support/obedient-channels.ts";
import { startTestPlatform } from "../support/platform.ts";
import { until } from "../support/until.ts";
import { outside } from "./outside.ts";

// A newer notification with the collapse key of one that is decided, and of which outside channels have not got all.

const { clock, options, node, key, sql, tenantId, answerWith, of, ...rest } = await outside();
const { newUser, send, get, reached, on, satisfied, held } = rest;
const { IN_APP, EMAIL, SMS, PUSH } = Channel;
const same = { collapseKey: "score" };

test("what a limit holds is superseded, whatever else waits stays, and the newer takes its turn tomorrow", async () => {
  const user = await satisfied(newUser());
  const older = await held(user, same);
  const other = await held(user, { collapseKey: "weather" });
  const others = await held(await satisfied(newUser()), same);
  const newer = await held(user, same);
  expect(await get(older)).toMatchObject({
    status: Status.CANCELLED,
    reason: Reason.SUPERSEDED,
    verdicts: [{ channel: SMS, kind: VerdictKind.SUPPRESS, reason: Reason.SUPERSEDED }],
  });
  expect((await get(older)).timeline.slice(-2)).toMatchObject([
    { status: Status.UNSPECIFIED, channel: SMS, reason: Reason.SUPERSEDED, actor: "posthorn" },
    { status: Status.CANCELLED, channel: Channel.UNSPECIFIED, reason: Reason.SUPERSEDED, actor: "posthorn" },
  ]);
  for (let day = 0; day < 5; day++) await on(24 * HOUR);
  for (const id of [other, others, newer]) await reached(id, Status.DELIVERED);
  expect([older, other, others, newer].map(of)).toEqual([[], [SMS], [SMS], [SMS]]);
});

test("what has come stays, and goes to the channel that holds it no more", async () => {
  const user = await satisfied(newUser());
  const escalation = { steps: [{ channel: PUSH, after: seconds(3600) }] };
  const older = await held(user, { ...same, channels: [IN_APP, SMS], escalation });
  const newer = await send(user, { ...same, channels: [IN_APP] });
  const { status, verdicts, timeline } = await get(older);
  expect([status, verdicts.find(({ channel }) => channel === SMS)?.reason]).toEqual([
    Status.DELIVERED,
    Reason.SUPERSEDED,
  ]);
  expect(timeline.at(-1)).toMatchObject({ status: Status.UNSPECIFIED, channel: 0, reason: Reason.SUPERSEDED });
  const { entries } = await key.inbox.listEntries({ userId: user });
  expect(entries.map(({ notificationId }) => notificationId)).toEqual([newer, older]);
  await on(48 * HOUR);
  expect(of(older)).toEqual([]);
});

test("an escalation that goes on ends with the newer one", async () => {
  const user = newUser();
  const escalation = { steps: [{ channel: PUSH, after: seconds(600) }] };
  const older = await send(user, { ...same, channels: [IN_APP], escalation });
  await send(user, { ...same, channels: [IN_APP] });
  expect((await key.send.cancelEscalation({ id: older })).cancelled).toBe(false);
  await on(HOUR);
  expect(of(older)).toEqual([]);
});

test("a fan-out takes the place of what waits, as a send does", async () => {
  const user = await satisfied(newUser());
  const older = await held(user, same);
  await key.topics.upsertTopic({ topic: { key: "matches" } });
  await key.topics.addMembers({ key: "matches", userIds: [user] });
  await key.send.send({ to: { topics: ["matches"] }, content: { title: "2:1" }, channels: [IN_APP], ...same });
  expect(await reached(older, Status.CANCELLED)).toMatchObject({ reason: Reason.SUPERSEDED });
});

test.each([
  ["takes it", SENT, Status.DELIVERED, Reason.UNSPECIFIED],
  ["does not take it", BUSY, Status.CANCELLED, Reason.SUPERSEDED],
])("superseded while a channel has it, which then %s, it is not tried again", async (_, does, status, reason) => {
  const turn = Promise.withResolvers<void>();
  answerWith(async (message) => {
    await turn.promise;
    return does(message);
  });
  const user = newUser();
  const older = await send(user, { ...same, channels: [EMAIL] });
  await until(
    async () => of(older),
    (all) => all.length === 1,
  );
  await send(user, { ...same, channels: [IN_APP] });
  expect((await get(older)).status).toBe(Status.PROCESSING);
  turn.resolve();
  const after = await reached(older, status);
  expect(after.reason).toBe(reason);
  expect(after.timeline.filter((entry) => entry.reason === Reason.CANCELLED)).toEqual([]);
  answerWith(SENT);
  await on(HOUR);
  expect(of(older)).toEqual([EMAIL]);
});

test("one that is being decided is waited for, and what that leaves to outside channels is stopped", async () => {
  const user = await satisfied(newUser());
  const older = await held(user, same);
  // As if it were being decided: what it is to be, and what it leaves, come with one commit.
  const [row] = await sql`select * from hand_overs where tenant_id = ${tenantId} and notification_id = ${older}`;
  await sql`delete from hand_overs where tenant_id = ${tenantId} and notification_id = ${older}`;
  await sql`update notifications set status = 1, queued_at = ${clock()} where tenant_id = ${tenantId} and id = ${older}`;
  const { sending } = await sql.begin(async (deciding) => {
    await deciding`update notifications set status = 5 where tenant_id = ${tenantId} and id = ${older}`;
    const [own] = await deciding<{ pid: number }[]>`select pg_backend_pid() as pid`;
    const sending = send(user, { ...same, channels: [IN_APP] });
    await until(
      () => sql`select from pg_stat_activity where ${own?.pid ?? 0}::int = any(pg_blocking_pids(pid))`,
      (rows) => rows.length > 0,
    );
    await deciding`insert into hand_overs ${deciding(row ?? {})}`;
    return { sending };
  });
  await sending;
  expect(await get(older)).toMatchObject({ status: Status.CANCELLED, reason: Reason.SUPERSEDED });
});

test("of many with one key through two servers while two hand over, each is given or superseded, never both", async () => {
  await using other = await startTestPlatform({ ...options, tenant: node.tenant });
  const tally = new Map<string, number>();
  for (let round = 0; round < 6; round++) {
    const user = newUser();
    const ids = (
      await Promise.all(
        Array.from({ length: 12 }, async (_, n) => {
          const { send } = n % 2 === 0 ? key : other.key;
          const asked = { to: { userIds: [user] }, content: { title: "race" }, channels: [EMAIL], ...same };
          return (await send.send(asked)).results[0]?.notificationId ?? "";
        }),
      )
    ).toSorted();
    for (const id of ids) {
      const { status, reason } = await until(
        () => get(id),
        ({ status }) => status >= Status.DELIVERED,
      );
      const ended = status === Status.DELIVERED ? "given" : "superseded";
      tally.set(ended, (tally.get(ended) ?? 0) + 1);
      expect([status, reason, of(id)]).toEqual(
        ended === "given" ? [Status.DELIVERED, 0, [EMAIL]] : [Status.CANCELLED, Reason.SUPERSEDED, []],
      );
    }
  }
  expect(tally.get("given")).toBeGreaterThanOrEqual(6);
  expect(tally.get("superseded")).toBeGreaterThan(0);
});
