import postgres from "postgres";
import { afterAll, expect, test } from "vitest";
import { Status } from "#gen/posthorn/v1/notification_pb.ts";
import type { Store, Tx } from "#src/store/store.ts";
import { platformOfFile } from "../support/platform.ts";
import { testServices } from "../support/services.ts";
import { until } from "../support/until.ts";
import { batching } from "./setup.ts";

const services = await testServices();
const sql = postgres(services.databaseUrl, { max: 1, onnotice: () => undefined });
afterAll(() => sql.end());

const closing = Promise.withResolvers<void>();
const goOn = Promise.withResolvers<void>();

/** Stops a close when it has read its members, and has still to write what becomes of them. */
function stopping(store: Store): Store {
  return {
    ...store,
    tenant: (tenantId, work) =>
      store.tenant(tenantId, (tx) => work(String(work).includes("applyClosings") ? beforeItWrites(tx) : tx)),
    [Symbol.asyncDispose]: () => store[Symbol.asyncDispose](),
  };
}

function beforeItWrites(tx: Tx): Tx {
  return new Proxy(tx, {
    apply(target, self, args: [TemplateStringsArray, ...unknown[]]) {
      const query = Reflect.apply(target, self, args);
      if (!args[0].join?.("").includes("outcome as materialized")) return query;
      const execute = async () => {
        closing.resolve();
        await goOn.promise;
        return query.execute();
      };
      return { execute };
    },
  });
}

const node = await platformOfFile({ services, between: { store: stopping } });
const { newType, send, reached, closed, entries } = batching(node);

test("a member that is cancelled while its batch closes is in what the batch becomes, and not cancelled", async () => {
  const type = await newType({ batchable: true, maxSize: 5, window: { seconds: 3600n } });
  const first = await send("ann", type, "One");
  await send("ann", type, "Two");
  const { batches } = await node.key.batches.listBatches({ userId: "ann" });
  const id = batches[0]?.id ?? "";
  await node.key.batches.closeBatch({ id, reason: "a test" });
  await closing.promise;

  const cancel = node.key.send.cancelNotifications({ ids: [first.notificationId] });
  let over = false;
  cancel.finally(() => {
    over = true;
  });
  const waiting = () => sql`
    select from pg_stat_activity
    where datname = current_database() and wait_event_type = 'Lock' and query like '%with which as%'`;
  await until(
    async () => over || (await waiting()).length > 0,
    (waitsOrOver) => waitsOrOver,
  );
  goOn.resolve();

  expect(await cancel).toMatchObject({ cancelled: 0 });
  expect((await closed(id)).size).toBe(2);
  await reached(first.notificationId, Status.DELIVERED);
  expect((await entries("ann")).map(({ content }) => content?.body)).toEqual(["One\nTwo"]);
});
