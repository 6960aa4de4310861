import { expect, test } from "vitest";
import { Channel, Priority, Reason, Status } from "#gen/posthorn/v1/notification_pb.ts";
import { queueHandOvers } from "#src/escalation/queries.ts";
import type { Claimed } from "#src/pipeline/deliver/claim.ts";
import { record } from "#src/pipeline/deliver/record.ts";
import { onPostgres } from "../support/on-postgres.ts";
import { wait } from "../support/waiting.ts";

const { store, sql, clock, newId, tenant } = await onPostgres();

test("what a process that stood still has claimed twice, and notes together, is told once", async () => {
  const { tenantId } = tenant();
  const [notificationId = ""] = await wait({ store, newId, clock }, tenantId, [
    { userId: "u1", status: Status.PROCESSING },
  ]);
  const claimed = (attempts: number): Claimed => ({
    ...{ tenantId, notificationId, userId: "u1", step: 0, channel: Channel.PUSH, attempts },
    ...{
      dueAt: clock(),
      heldBy: Reason.UNSPECIFIED,
      trace: null,
      atMostOnce: false,
      inDoubt: false,
      cancelledBy: null,
    },
  });
  const handOver = {
    notificationId,
    userId: "u1",
    priority: Priority.NORMAL,
    step: 0,
    channel: Channel.PUSH,
    atMostOnce: false,
    trace: "",
  };
  const { failed } = await store.tenant(tenantId, async (tx) => {
    await queueHandOvers(tx, tenantId, [handOver], clock());
    await tx`update hand_overs set attempts = 2 where tenant_id = ${tenantId}`;
    const results = [1, 2].map((attempts) => ({ kind: "failed" as const, claimed: claimed(attempts) }));
    return record(tx, tenantId, results, { now: clock(), slot: 0, retryAt: clock });
  });
  expect(failed).toEqual([{ notificationId, step: 0 }]);
  const told = await sql`select channel from timeline where tenant_id = ${tenantId}`;
  expect(told.map(({ channel }) => channel)).toEqual([Channel.PUSH]);
  expect(await sql`select from hand_overs where tenant_id = ${tenantId}`).toHaveLength(0);
});
