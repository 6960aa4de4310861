import postgres from "postgres";
import { afterAll, expect, test } from "vitest";
import { Status } from "#gen/posthorn/v1/notification_pb.ts";
import { Digest_Mode } from "#gen/posthorn/v1/preferences_service_pb.ts";
import { DigestRule } from "#gen/posthorn/v1/type_service_pb.ts";
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
let releases = true;

/**
 * Stops the first close when it has read its members, and has still to write what becomes of them; and has the scheduler
 * find nothing to release while that is not to happen.
 */
function stopping(store: Store): Store {
  return {
    ...store,
    tenant: (tenantId, work) =>
      store.tenant(tenantId, (tx, last) =>
        work(String(work).includes("applyClosings") ? beforeItWrites(tx) : tx, last),
      ),
    system: async (work) =>
      !releases && String(work).includes("claimDue") ? ([] as Awaited<ReturnType<typeof work>>) : store.system(work),
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
const { newType, send, reached, closed, entries, prefer } = batching(node);

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
    where datname = current_database() and wait_event_type = 'Lock' and query like '%for update) locked%'`;
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

test("a member that is to be decided anew is in no digest that closes before it is", async () => {
  await prefer("bob", { digest: { mode: Digest_Mode.DAILY } });
  const changing = await newType(undefined);
  const leaves = await send("bob", changing, "One");
  await send("bob", await newType(undefined), "Two");
  const { batches } = await node.key.batches.listBatches({ userId: "bob" });
  const id = batches[0]?.id ?? "";
  // Also where this runs alone.
  goOn.resolve();

  releases = false;
  await node.key.types.updateType({
    type: { key: changing, digest: DigestRule.NEVER },
    updateMask: { paths: ["digest"] },
  });
  await until(
    () => sql`select from notifications where id = ${leaves.notificationId} and due_at is not null`,
    (due) => due.length === 1,
  );
  await node.key.batches.closeBatch({ id, reason: "a test" });
  expect((await closed(id)).size).toBe(1);

  releases = true;
  await reached(leaves.notificationId, Status.DELIVERED);
  expect((await entries("bob")).map(({ content }) => content?.title).sort()).toEqual(["One", "Two"]);
});
