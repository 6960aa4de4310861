import type { JsonObject } from "@bufbuild/protobuf";
import { timestampFromDate } from "@bufbuild/protobuf/wkt";
import { sql } from "drizzle-orm";
import postgres from "postgres";
import { afterAll, afterEach, describe, expect, test } from "vitest";
import { Status } from "#gen/posthorn/v1/notification_pb.ts";
import type { SendBatchResult } from "#gen/posthorn/v1/send_service_pb.ts";
import type { Store } from "#src/store/store.ts";
import { shipped } from "../../support/descriptors.ts";
import { platformOfFile } from "../../support/platform.ts";
import { refusalOf } from "../../support/refusal.ts";
import { testServices } from "../../support/services.ts";
import { until } from "../../support/until.ts";

// One server pushes versions of contracts, while another takes Sends that it judges by what it has read before.

/** A place in which a server waits, once, until it is let on. */
type Gate = { reached: PromiseWithResolvers<void>; opened: PromiseWithResolvers<void> };
const gates: { send?: Gate; look?: Gate; locked?: Gate } = {};
async function wait(at: keyof typeof gates): Promise<void> {
  const gate = gates[at];
  if (gate === undefined) return;
  delete gates[at];
  gate.reached.resolve();
  await gate.opened.promise;
}
function gateAt(at: keyof typeof gates): Gate {
  const gate = { reached: Promise.withResolvers<void>(), opened: Promise.withResolvers<void>() };
  gates[at] = gate;
  return gate;
}
afterEach(() => {
  for (const at of ["send", "look", "locked"] as const) {
    gates[at]?.opened.resolve();
    delete gates[at];
  }
});

const services = await testServices();
const watching = postgres(services.databaseUrl, { max: 1, onnotice: () => undefined });
afterAll(() => watching.end());
const over = (store: Store, changed: Partial<Store>): Store => ({
  ...store,
  ...changed,
  [Symbol.asyncDispose]: () => store[Symbol.asyncDispose](),
});
/** Nothing runs on it but what is called: the gates are for the calls of tests. */
const pusher = await platformOfFile({
  services,
  roles: ["api"],
  between: {
    store: (store) =>
      over(store, {
        async tenantDb(tenantId, work) {
          await wait("look");
          return store.tenantDb(tenantId, async (db) => {
            const result = await work(db);
            if (gates.locked !== undefined && (await hasLock(db))) await wait("locked");
            return result;
          });
        },
      }),
  },
});
const sender = await platformOfFile({
  services,
  tenant: pusher.tenant,
  roles: ["api"],
  between: {
    store: (store) =>
      over(store, {
        async tenant(tenantId, work) {
          await wait("send");
          return store.tenant(tenantId, work);
        },
      }),
  },
});

/** Whether a push has its type's contract to itself. */
async function hasLock(db: Parameters<Parameters<Store["tenantDb"]>[1]>[0]): Promise<boolean> {
  const locks = await db.execute(sql`
    select from pg_locks where pid = pg_backend_pid() and locktype = 'advisory' and mode = 'ExclusiveLock' and granted`);
  return locks.length > 0;
}

const message = "acme.Shipped";
const LOOSE = shipped("string order = 1;");
/** Breaks nothing by itself; only payloads that wait may not be valid under it. */
const STRICT = shipped("string order = 1 [(buf.validate.field).string.min_len = 4];");
const [SHORT, LONG] = ["abc", "abcdef"];
const later = { case: "scheduleTime", value: timestampFromDate(new Date(Date.now() + 86_400_000)) } as const;
const item = (type: string, order?: string) => ({
  to: { userIds: ["ann"] },
  type,
  content: { title: order ?? "t", ...(order !== undefined && { data: { order } as JsonObject }) },
  schedule: later,
});

let types = 0;
/** One with a contract that the sending server has judged by already. */
async function newType(): Promise<string> {
  const type = `two-servers-${++types}`;
  await pusher.key.types.createType({ type: { key: type } });
  await pusher.key.types.pushPayload({ type, descriptorSet: LOOSE, message });
  const { results } = await sender.key.send.send(item(type, LONG));
  await sender.key.send.cancelNotification({ id: results[0]?.notificationId ?? "" });
  return type;
}
const push = (type: string) => pusher.key.types.pushPayload({ type, descriptorSet: STRICT, message });
/** The orders of what is stored of a type. */
async function stored(type: string): Promise<string[]> {
  const { notifications } = await pusher.key.send.listNotifications({
    filter: { types: [type], statuses: [Status.SCHEDULED] },
    pageSize: 200,
  });
  return notifications.map(({ content }) => content?.title ?? "").toSorted();
}
/** What became of each: the field that it was refused for; "": it was accepted. */
const outcomes = (results: readonly SendBatchResult[]) =>
  results.map(({ result }) => (result.case === "error" ? result.value.fieldViolations[0]?.field : ""));
const WRONG = "content.data.order";

test("of a batch of several types only what the pushed versions refuse is refused; the rest is stored, and once", async () => {
  const [one, two, other, plain] = [await newType(), await newType(), await newType(), `two-servers-${++types}`];
  await pusher.key.types.createType({ type: { key: plain } });
  const gate = gateAt("send");
  const sent = sender.key.send.sendBatch({
    items: [
      ...[item(one, SHORT), item(other, SHORT), item(one, LONG), item(plain)],
      ...[item(two, SHORT), item(two, LONG), item("general"), item(other, LONG)],
    ],
  });
  // It has been judged, and is about to be stored.
  await gate.reached.promise;
  for (const type of [one, two]) expect((await push(type)).contract?.version).toBe(2);
  gate.opened.resolve();
  expect(outcomes((await sent).results)).toEqual([WRONG, "", "", "", WRONG, "", "", ""]);
  expect(await stored(one)).toEqual([LONG]);
  expect(await stored(two)).toEqual([LONG]);
  expect(await stored(other)).toEqual([SHORT, LONG]);
  expect(await stored(plain)).toEqual(["t"]);
});

describe("while a version is pushed", () => {
  test("Sends are stored while it looks at what waits, and it is refused for one that came meanwhile", async () => {
    const type = await newType();
    const gate = gateAt("look");
    let pushed = false;
    const refused = refusalOf(push(type)).finally(() => {
      pushed = true;
    });
    await gate.reached.promise;
    const { results } = await sender.key.send.send(item(type, SHORT));
    expect(pushed).toBe(false);
    gate.opened.resolve();
    expect((await refused).fields).toEqual([`notification:${results[0]?.notificationId}`]);
    expect(await stored(type)).toEqual([SHORT]);
  });

  test("Sends of its type wait from its last look to its end, and are judged by it; those of others go on", async () => {
    const [type, other] = [await newType(), await newType()];
    const gate = gateAt("locked");
    const pushed = push(type);
    await gate.reached.promise;
    let ended = false;
    const sent = sender.key.send.sendBatch({ items: [item(type, SHORT), item(type, LONG)] }).finally(() => {
      ended = true;
    });
    await waitingForLock();
    for (const order of [SHORT, LONG]) await sender.key.send.send(item(other, order));
    expect(await stored(other)).toEqual([SHORT, LONG]);
    expect(ended).toBe(false);
    gate.opened.resolve();
    expect((await pushed).contract?.version).toBe(2);
    expect(outcomes((await sent).results)).toEqual([WRONG, ""]);
    expect(await stored(type)).toEqual([LONG]);
  });

  test("nothing is stored that the current version refuses, whether it was accepted or refused", async () => {
    const seen = { accepted: 0, refused: 0 };
    // After how many batches that any version takes come those that the new one refuses.
    for (const calm of [0, 1, 2, 3, 5, 8, Number.POSITIVE_INFINITY]) {
      const [type, other] = [await newType(), await newType()];
      if (calm === 0) await sender.key.send.send(item(type, SHORT));
      let pushes = true;
      const pushed = push(type).then(
        () => true,
        () => false,
      );
      void pushed.finally(() => {
        pushes = false;
      });
      const all: SendBatchResult[][] = [];
      while (pushes) {
        const order = all.length < calm ? LONG : SHORT;
        const items = [item(type, order), item(other, SHORT), item(type, LONG), item("general")];
        all.push((await sender.key.send.sendBatch({ items })).results);
      }
      const accepted = await pushed;
      all.push((await sender.key.send.sendBatch({ items: [item(type, SHORT), item(other, SHORT)] })).results);
      seen[accepted ? "accepted" : "refused"]++;
      expect((await pusher.key.types.getPayload({ type })).contract?.version).toBe(accepted ? 2 : 1);
      // What no push concerns is stored, and everything that was answered is.
      for (const [, ...rest] of all) expect(new Set(outcomes(rest))).toEqual(new Set([""]));
      expect(outcomes(all.at(-1) ?? [])[0]).toBe(accepted ? WRONG : "");
      const kept = await stored(type);
      if (accepted) expect(kept).not.toContain(SHORT);
    }
    expect(seen.accepted * seen.refused).toBeGreaterThan(0);
  });
});

/** Until somebody of this database waits to share a contract that a push has to itself. */
function waitingForLock() {
  const waits = () => watching`
    select from pg_locks where locktype = 'advisory' and mode = 'ShareLock' and not granted
      and database = (select oid from pg_database where datname = current_database())
      and (classid, objid) in (select classid, objid from pg_locks where locktype = 'advisory' and mode = 'ExclusiveLock'
        and granted and database = (select oid from pg_database where datname = current_database()))`;
  return until(waits, (rows) => rows.length > 0);
}
