import { expect, test } from "vitest";
import { Channel, Priority, Reason, Status } from "#gen/posthorn/v1/notification_pb.ts";
import { endHandOverHolds, queueHandOvers } from "#src/escalation/queries.ts";
import { type Claimed, claimDue } from "#src/pipeline/deliver/claim.ts";
import { type CameOf, record } from "#src/pipeline/deliver/record.ts";
import { onPostgres } from "../../support/on-postgres.ts";
import { wait } from "../../support/waiting.ts";

// What a hand-over is remembered by that waits for its turn with a channel.

const { store, sql, clock, newId, tenant } = await onPostgres();
const HOUR = 3_600_000;
const START = clock().getTime();
const at = (hours: number) => new Date(START + hours * HOUR);

async function queued(atMostOnce: boolean) {
  const { tenantId } = tenant();
  const [notificationId = ""] = await wait({ store, newId, clock }, tenantId, [
    { userId: "u1", status: Status.PROCESSING },
  ]);
  const about = { notificationId, userId: "u1", priority: Priority.NORMAL, step: 0, channel: Channel.SMS };
  await store.tenant(tenantId, (tx) => queueHandOvers(tx, tenantId, [{ ...about, atMostOnce, trace: "" }], at(0)));
  const [channel, size] = [Channel.SMS, 9];
  return {
    tenantId,
    claim: async (now: Date): Promise<Claimed | undefined> => {
      const claimed = await store.system((tx) =>
        claimDue(tx, now, new Date(now.getTime() + HOUR), [{ channel, size }]),
      );
      return claimed.find((each) => each.notificationId === notificationId);
    },
    note: (claimed: Claimed | undefined, came: CameOf, now: Date) =>
      store.tenant(tenantId, (tx) =>
        record(tx, tenantId, [{ ...came, claimed: claimed as Claimed }], { now, slot: 0, retryAt: () => at(9) }),
      ),
    changeRules: (now: Date) => store.tenantDb(tenantId, (db) => endHandOverHolds(db, tenantId, ["u1"], now)),
  };
}

const until = (hours: number): CameOf => ({
  kind: "held",
  hold: { reason: Reason.CHANNEL_DAY_LIMIT, until: at(hours) },
});

test.each([false, true])(
  "what is held was not tried, and nobody doubts whether it came (at most once: %s)",
  async (once) => {
    const { claim, note, tenantId } = await queued(once);
    const first = await claim(at(0));
    expect(first).toMatchObject({ attempts: 1, heldBy: Reason.UNSPECIFIED, inDoubt: false });
    const { held } = await note(first, until(24), at(0));
    expect(held).toMatchObject([{ channel: Channel.SMS, status: Status.PROCESSING, reason: Reason.CHANNEL_DAY_LIMIT }]);
    expect(await claim(at(23))).toBeUndefined();
    const second = await claim(at(24));
    expect(second).toMatchObject({ attempts: 1, heldBy: Reason.CHANNEL_DAY_LIMIT, inDoubt: false });
    // Whoever claimed it had to stop: it goes on waiting as before.
    await note(second, { kind: "back", inDoubt: false }, at(24));
    const third = await claim(at(24));
    expect(third).toMatchObject({ attempts: 1, heldBy: Reason.CHANNEL_DAY_LIMIT, inDoubt: false });
    // Tried, it has had its turn.
    await note(third, { kind: "retry", inDoubt: false }, at(24));
    expect(await claim(at(25))).toMatchObject({ attempts: 2, heldBy: Reason.UNSPECIFIED, inDoubt: false });
    expect(await sql`select from timeline where tenant_id = ${tenantId} and channel = ${Channel.SMS}`).toHaveLength(1);
  },
);

test("a change of rules gives what is held its turn, but none to another while somebody has claimed it", async () => {
  const { claim, note, changeRules } = await queued(true);
  await note(await claim(at(0)), until(24), at(0));
  await changeRules(at(1));
  const claimed = await claim(at(1));
  expect(claimed).toMatchObject({ attempts: 1, heldBy: Reason.CHANNEL_DAY_LIMIT });
  await changeRules(at(1.5));
  expect(await claim(at(1.5))).toBeUndefined();
  // Who died with it leaves what it knew to the next.
  const next = await claim(at(2));
  expect(next).toMatchObject({ attempts: 2, heldBy: Reason.CHANNEL_DAY_LIMIT });
  await note(next, until(30), at(2));
  await changeRules(at(3));
  expect(await claim(at(3))).toMatchObject({ attempts: 2 });
});
