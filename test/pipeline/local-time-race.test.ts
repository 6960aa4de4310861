import postgres from "postgres";
import { afterAll, expect, test } from "vitest";
import type { Store } from "#src/store/store.ts";
import { platformOfFile } from "../support/platform.ts";
import { testServices } from "../support/services.ts";
import { until } from "../support/until.ts";

const services = await testServices();
const sql = postgres(services.databaseUrl, { max: 1, onnotice: () => undefined });
afterAll(() => sql.end());

/** Where the next transaction that stores a local time stops, and what lets it go on. */
type Stop = { what: string; reached: () => void; goOn: Promise<void> };
let stop: Stop | undefined;

function stopping(store: Store): Store {
  return {
    ...store,
    async tenant(tenantId, work) {
      if (stop !== undefined && String(work).includes(stop.what)) {
        const { reached, goOn } = stop;
        stop = undefined;
        reached();
        await goOn;
      }
      return store.tenant(tenantId, work);
    },
    [Symbol.asyncDispose]: () => store[Symbol.asyncDispose](),
  };
}

const node = await platformOfFile({ services, between: { store: stopping } });
const { send, users, topics } = node.key;

const day = new Date(Date.now() + 3 * 86_400_000).toISOString().slice(0, 10);
const local = `${day}T09:00`;
const schedule = { case: "localScheduleTime", value: local } as const;
const content = { title: "Hi" };
const times = () => sql`
  select to_char(scheduled_at at time zone 'UTC', 'HH24:MI') as time from notifications where scheduled_at is not null`;

/** Begins, moves the user from UTC to Tokyo before it is stored, and lets it go on. */
async function movedBefore(what: string, userId: string, begin: () => Promise<unknown>): Promise<void> {
  const { promise: goOn, resolve: release } = Promise.withResolvers<void>();
  const { promise: reached, resolve } = Promise.withResolvers<void>();
  stop = { what, reached: resolve, goOn };
  const begun = begin();
  await reached;
  await users.updateUser({ user: { id: userId, timeZone: "Asia/Tokyo" }, updateMask: { paths: ["time_zone"] } });
  release();
  await begun;
}

test.each([
  ["a Send", "commitGroup", (id: string) => send.send({ to: { userIds: [id] }, content, schedule })],
  ["a fan-out", "storePage", (id: string) => send.send({ to: { topics: [id] }, content, schedule })],
])("%s stores a local time by the zone that its user is in by then", async (_, what, begin) => {
  await sql`delete from notifications`;
  const id = what.toLowerCase();
  await users.upsertUser({ user: { id, timeZone: "UTC" } });
  await topics.upsertTopic({ topic: { key: id } });
  await topics.addMembers({ key: id, userIds: [id] });
  await movedBefore(what, id, () => begin(id));
  expect(await until(times, (found) => found.length > 0)).toEqual([{ time: "00:00" }]);
});

test("an update to a local time is by the zone that its user is in by then", async () => {
  await sql`delete from notifications`;
  await users.upsertUser({ user: { id: "ann", timeZone: "UTC" } });
  const { results } = await send.send({ to: { userIds: ["ann"] }, content, schedule });
  const id = results[0]?.notificationId ?? "";
  const updateMask = { paths: ["local_schedule_time"] };
  await movedBefore("lockNotification", "ann", () =>
    send.updateNotification({ id, localScheduleTime: `${day}T10:00`, updateMask }),
  );
  expect(await times()).toEqual([{ time: "01:00" }]);
});
