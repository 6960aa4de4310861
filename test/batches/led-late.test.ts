import { expect, test } from "vitest";
import { BatchKind } from "#gen/posthorn/v1/batch_service_pb.ts";
import { Priority, Status } from "#gen/posthorn/v1/notification_pb.ts";
import { openLeading } from "#src/batches/join.ts";
import { onPostgres } from "../support/on-postgres.ts";
import { wait } from "../support/waiting.ts";

const { store, sql, clock, newId, tenant } = await onPostgres();

/** What a worker does who has read the notification as ACCEPTED, and comes to lead when it is what `status` says. */
async function leads(status: Status) {
  const { tenantId } = tenant();
  const [id = ""] = await wait({ store, newId, clock }, tenantId, [{ userId: "ann", status }]);
  const due = new Date(clock().getTime() + 60_000);
  const plan = { kind: BatchKind.BATCH, key: "b:t:2:1", flushAt: due, latestFlushAt: due, maxSize: 3, leading: true };
  const row = { id, userId: "ann", type: "t", category: "t", priority: Priority.NORMAL, version: "0", plan };
  const led = await store.tenant(tenantId, (tx) => openLeading(tx, tenantId, [row], { now: clock(), newId }));
  const open = await sql`select from batches where tenant_id = ${tenantId} and state = 1`;
  return { led: led.has(id), open: open.length };
}

test("who was decided meanwhile, and whose batch is full already, opens no other that would keep the next from leading", async () => {
  expect(await leads(Status.ACCEPTED)).toEqual({ led: true, open: 1 });
  expect(await leads(Status.DELIVERED)).toEqual({ led: false, open: 0 });
  expect(await leads(Status.CANCELLED)).toEqual({ led: false, open: 0 });
});
