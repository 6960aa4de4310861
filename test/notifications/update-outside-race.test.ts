import { timestampDate } from "@bufbuild/protobuf/wkt";
import type { TransactionSql } from "postgres";
import { expect, test } from "vitest";
import { Channel, Status } from "#gen/posthorn/v1/notification_pb.ts";
import { HOUR, MINUTE } from "../batches/setup.ts";
import { startTestPlatform } from "../support/platform.ts";
import { until } from "../support/until.ts";
import { outside } from "./outside.ts";

// What is changed while it is being handed over, or is about to be.

const { clock, pass, options, node, key, sql, tenantId, of, within, titles, ...rest } = await outside();
const { newUser, reached, on, satisfied, held, behind, onTheirWay } = rest;
const { IN_APP, EMAIL, SMS } = Channel;
const change = (id: string, title: string) => key.send.updateNotification({ id, content: { title } });

test("a claim that is being made is waited for, and counts as gone", async () => {
  const id = await held(await satisfied(newUser()));
  const dueAt = new Date(clock().getTime() + MINUTE);
  const claiming = (tx: TransactionSql) => tx`
    update hand_overs set claimed = true, given = true, attempts = attempts + 1, due_at = ${dueAt}
    where tenant_id = ${tenantId} and notification_id = ${id}`;
  const { updatedChannels, pendingChannels } = await behind(claiming, () => change(id, "changed"));
  expect([updatedChannels, pendingChannels]).toEqual([[], [SMS]]);
  // Whoever had claimed it is never heard of again: whoever finds it next has it as changed.
  pass(2 * MINUTE);
  await reached(id, Status.DELIVERED);
  expect(titles(id)).toEqual(["changed"]);
});

test("what is due while a change is being made is claimed after it, and comes as changed", async () => {
  const user = await satisfied(newUser());
  const id = await held(user, { channels: [IN_APP, SMS] });
  const { updatedChannels } = await behind(
    (tx) => tx`select from inbox_heads where tenant_id = ${tenantId} and user_id = ${user} for update`,
    () => change(id, "changed"),
    async () => {
      for (let day = 0; day < 2; day++) await on(24 * HOUR);
      expect(of(id)).toEqual([]);
    },
  );
  expect(updatedChannels).toEqual([IN_APP, SMS]);
  await until(
    async () => titles(id),
    (all) => all.length > 0,
  );
  expect(titles(id)).toEqual(["changed"]);
});

test.each([
  ["would come too late then, ends", false, Status.EXPIRED, []],
  ["would come in time then, goes on", true, Status.DELIVERED, ["Server down"]],
])("what is given another expiry while its limit is asked, and %s", async (_, wasEarly, status, came) => {
  const id = await held(await satisfied(newUser()));
  const expireTime = within(HOUR);
  if (wasEarly)
    await sql`update notifications set expires_at = ${timestampDate(expireTime)} where tenant_id = ${tenantId} and id = ${id}`;
  const expiry = wasEarly ? {} : { expireTime };
  const { pendingChannels } = await behind(
    (tx) => tx`select from notifications where tenant_id = ${tenantId} and id = ${id} for update`,
    () => key.send.updateNotification({ id, ...expiry, updateMask: { paths: ["expire_time"] } }),
    async (pid) => {
      // Asked by what it was, and noted after the change.
      await sql`update hand_overs set due_at = ${clock()} where tenant_id = ${tenantId} and notification_id = ${id}`;
      await until(
        () => sql`
          with recursive w as (
            select pid from pg_stat_activity where ${pid}::int = any(pg_blocking_pids(pid))
            union select a.pid from pg_stat_activity a join w on w.pid = any(pg_blocking_pids(a.pid))) select from w`,
        (rows) => rows.length >= 2,
      );
    },
  );
  expect(pendingChannels).toEqual([SMS]);
  if (wasEarly) for (let day = 0; day < 3; day++) await on(24 * HOUR);
  await reached(id, status);
  expect(titles(id)).toEqual(came);
});

test("changed by two servers while two hand over, each comes once, and as the answer says", async () => {
  await using other = await startTestPlatform({ ...options, tenant: node.tenant });
  const tally = new Map<string, number>();
  for (let round = 0; round < 12; round++) {
    const ids = await onTheirWay("first", round % 12);
    const answers = await Promise.all(
      ids.map((id, n) => {
        const { send } = n % 2 === 0 ? key : other.key;
        return send.updateNotification({ id, content: { title: "changed" } }).catch(() => undefined);
      }),
    );
    for (const [n, id] of ids.entries()) {
      await reached(id, Status.DELIVERED);
      const [title, ...more] = titles(id);
      expect(more).toEqual([]);
      const answer = answers[n];
      const said = answer === undefined ? "refused" : answer.pendingChannels.length > 0 ? "pending" : "changed";
      tally.set(said, (tally.get(said) ?? 0) + 1);
      if (said !== "pending") expect([id, title]).toEqual([id, said === "refused" ? "first" : "changed"]);
    }
  }
  expect(tally.get("changed")).toBeGreaterThan(0);
  expect(tally.get("refused")).toBeGreaterThan(0);
});

test("taken back by two servers while two hand over, each comes now or at its time, and never twice", async () => {
  await using other = await startTestPlatform({ ...options, tenant: node.tenant });
  const taken: string[] = [];
  for (let round = 0; round < 6; round++) {
    const ids = await onTheirWay("race", (2 * round) % 12);
    const scheduleTime = within(100 * HOUR);
    const answers = await Promise.all(
      ids.map((id, n) => {
        const { send } = n % 2 === 0 ? key : other.key;
        return send.updateNotification({ id, scheduleTime }).catch(() => undefined);
      }),
    );
    for (const [n, id] of ids.entries()) {
      if (answers[n] !== undefined) taken.push(id);
      else await reached(id, Status.DELIVERED);
      expect(of(id)).toEqual(answers[n] === undefined ? [EMAIL] : []);
    }
  }
  expect(taken.length).toBeGreaterThan(0);
  pass(101 * HOUR);
  for (const id of taken) {
    await reached(id, Status.DELIVERED);
    expect(of(id)).toEqual([EMAIL]);
  }
});
