import postgres from "postgres";
import { afterAll, expect, test } from "vitest";
import { Channel, VerdictKind } from "#gen/posthorn/v1/notification_pb.ts";
import { fenceNames } from "#src/preferences/fence.ts";
import { escalating, sinkFolder } from "../escalation/setup.ts";
import { platformOfFile } from "../support/platform.ts";
import { testServices } from "../support/services.ts";
import { until } from "../support/until.ts";

// A user's rules change while somebody has claimed a hand-over of theirs, and has decided by the former ones that it waits.

const services = await testServices();
const sink = await sinkFolder();
const START = new Date("2026-12-01T10:20:00Z");
const sql = postgres(services.databaseUrl, { max: 2, onnotice: () => undefined });
afterAll(() => sql.end());
const { node, userBehind } = await nodeWithUserBehind();
const { newUser, send, prefer, told } = escalating(node);
const { tenantId } = node.tenant;

/** And a user whose fence is taken after that of all: by their hashes, by which one tenant in some dozens has none. */
async function nodeWithUserBehind() {
  for (;;) {
    const node = await platformOfFile({ services, clock: () => START, env: sink.env });
    const fenceOf = (user: string) => fenceNames(node.tenant.tenantId, [user])[0] ?? "";
    const users = new Map(Array.from({ length: 1000 }, (_, n) => [fenceOf(`behind-${n}`), `behind-${n}`]));
    const [behind] = await sql<{ name: string }[]>`
      select name from unnest(${[...users.keys()]}::text[]) as t (name)
      where hashtextextended(name, 0) > hashtextextended(${fenceOf("")}, 0) limit 1`;
    const userBehind = behind && users.get(behind.name);
    if (userBehind !== undefined) return { node, userBehind };
  }
}

const given = (id: string) =>
  until(
    () => sink.of("sms", id),
    (lines) => lines.length === 1,
  );

/** One that waits for tomorrow. */
async function heldFor(user: string): Promise<string> {
  await prefer(user, { channelLimits: { smsPerDay: 1 } });
  await given(await send(user, { channels: [Channel.SMS] }));
  const id = await send(user, { channels: [Channel.SMS] });
  await told(id, ({ verdicts }) => verdicts[0]?.kind === VerdictKind.HOLD);
  return id;
}

/** Has all that waits for the user asked again, and nothing else. */
const askAgain = (user: string) => prefer(user, { channelLimits: { smsPerDay: 1, emailPerDay: 9 } });
const allowMore = (user: string) => prefer(user, { channelLimits: { smsPerDay: 3 } });

type Locking = Parameters<Parameters<typeof sql.begin>[1]>[0];

/** Does something while a lock is held. `blocked`: how many wait for it, or for who does. */
async function whileLocked(
  lock: (tx: Locking) => Promise<unknown>,
  work: (blocked: (most: number) => Promise<boolean>) => Promise<void>,
): Promise<void> {
  await sql.begin(async (tx) => {
    await lock(tx);
    const [own] = await tx<{ pid: number }[]>`select pg_backend_pid() as pid`;
    const pid = own?.pid ?? 0;
    await work(async (count) => {
      const rows = await sql`
        with recursive behind as (
          select ${pid}::int as pid
          union select a.pid from pg_stat_activity a join behind b on b.pid = any(pg_blocking_pids(a.pid)))
        select from behind`;
      return rows.length > count;
    });
  });
}

test("a change that comes before it is noted is found when it is", async () => {
  // The note takes the fence of all first, which the user's change does not need.
  const user = userBehind;
  const id = await heldFor(user);
  await whileLocked(
    (tx) => tx`select pg_advisory_xact_lock(hashtextextended(${fenceNames(tenantId, [""])[0] ?? ""}, 0))`,
    async (blocked) => {
      await askAgain(user);
      await until(() => blocked(1), Boolean);
      await allowMore(user);
    },
  );
  expect(await given(id)).toHaveLength(1);
});

test("a change that comes while it is noted waits for that, and finds it", async () => {
  const user = newUser();
  const id = await heldFor(user);
  let changed: Promise<unknown> = Promise.resolve();
  await whileLocked(
    (tx) => tx`select from notifications where tenant_id = ${tenantId} and id = ${id} for update`,
    async (blocked) => {
      await askAgain(user);
      await until(() => blocked(1), Boolean);
      let done = false;
      changed = allowMore(user).finally(() => {
        done = true;
      });
      await until(async () => done || (await blocked(2)), Boolean);
    },
  );
  await changed;
  expect(await given(id)).toHaveLength(1);
});
