import postgres from "postgres";
import { afterAll, afterEach, describe, expect, test } from "vitest";
import { Channel, Reason, Status, VerdictKind } from "#gen/posthorn/v1/notification_pb.ts";
import { endHoldsOfAll } from "#src/escalation/queries.ts";
import type { Store } from "#src/store/store.ts";
import { HOUR, MINUTE, steppedClock } from "../batches/setup.ts";
import { platformOfFile } from "../support/platform.ts";
import { testServices } from "../support/services.ts";
import { until } from "../support/until.ts";
import { escalating, seconds, sinkFolder, stoppableTakings } from "./setup.ts";

// Rules that change while they hold steps back, or while somebody takes these by the former ones.
const services = await testServices();
const sink = await sinkFolder();
const { clock, step: pass } = steppedClock();
const sql = postgres(services.databaseUrl, { max: 1, onnotice: () => undefined });
afterAll(() => sql.end());

const takings = stoppableTakings();
afterEach(takings.go);
/** The node's own. */
let all: Store | undefined;
const stopping = (store: Store) => {
  all = store;
  return takings.store(store);
};

const node = await platformOfFile({ services, clock, env: sink.env, between: { store: stopping } });
const { key } = node;
const { newUser, send, get, prefer, told } = escalating(node);
const FIRST = "00000000-0000-0000-0000-000000000000";
const steps = [{ channel: Channel.EMAIL, after: seconds(600) }];

/** Hours in which it is quiet from now on, for the whole of a test. */
function quiet() {
  const wall = (hours: number) => `${String((clock().getUTCHours() + hours) % 24).padStart(2, "0")}:00`;
  return { enabled: true, startTime: wall(23), endTime: wall(20) };
}
const held = (id: string) => told(id, ({ step, reason }) => step === 1 && reason === Reason.QUIET_HOURS);
const given = (id: string) =>
  until(
    () => sink.of("email", id),
    (lines) => lines.length > 0,
  );
const holdsOf = async (id: string) =>
  (await get(id)).timeline.filter(({ verdicts }) => verdicts[0]?.kind === VerdictKind.HOLD);

async function stopAt(at: "before" | "uncommitted") {
  const { reached, release } = takings.stop(at);
  pass(10 * MINUTE);
  await reached;
  return release;
}

describe("a hold of a step", () => {
  test("by rules that were changed before it could be stored is none", async () => {
    const user = newUser();
    const id = await send(user, { escalation: { steps } });
    await prefer(user, { quietHours: quiet() });
    const release = await stopAt("before");
    await prefer(user, { quietHours: { enabled: false } });
    release();
    await given(id);
    expect(await holdsOf(id)).toEqual([]);
  });

  test("that is being stored is found by the change of its rules", async () => {
    const user = newUser();
    const id = await send(user, { escalation: { steps } });
    await prefer(user, { quietHours: quiet() });
    const release = await stopAt("uncommitted");
    const change = prefer(user, { quietHours: { enabled: false } });
    await until(
      () => sql`select from pg_locks where locktype = 'advisory' and not granted`,
      (waiting) => waiting.length > 0,
    );
    release();
    await change;
    await given(id);
    expect(await holdsOf(id)).toHaveLength(1);
  });

  test("ends when the tenant's defaults change", async () => {
    const update = (quietHours: object) =>
      key.preferences.updateDefaultPreferences({ preferences: { quietHours }, reason: "a test" });
    const users = Array.from({ length: 5 }, newUser);
    const ids = await Promise.all(users.map((user) => send(user, { escalation: { steps } })));
    await update(quiet());
    pass(10 * MINUTE);
    await Promise.all(ids.map(held));
    await update({ enabled: false });
    await Promise.all(ids.map(given));
    for (const id of ids)
      await told(id, ({ channel, status }) => channel === Channel.EMAIL && status === Status.DELIVERED);
  });

  test("is found page by page, none twice", async () => {
    const { tenantId } = node.tenant;
    const known = await sql`select from escalations where tenant_id = ${tenantId}`;
    const pages: number[] = [];
    for (let after: string | undefined = FIRST; after !== undefined; ) {
      const from: string = after;
      const page = await all?.tenantDb(tenantId, (db) => endHoldsOfAll(db, { tenantId, type: "" }, from, 2));
      pages.push(page?.looked ?? 0);
      after = page?.last;
    }
    expect(pages.reduce((sum, looked) => sum + looked)).toBe(known.length);
    expect(pages.length).toBe(Math.floor(known.length / 2) + 1);
  });

  test("ends when its type changes, and that of another type stays", async () => {
    for (const type of ["asked", "other"]) await key.types.createType({ type: { key: type } });
    const user = newUser();
    const [id, other] = [
      await send(user, { type: "asked", escalation: { steps } }),
      await send(user, { type: "other", escalation: { steps } }),
    ];
    await prefer(user, { quietHours: quiet() });
    pass(10 * MINUTE);
    await held(id);
    await held(other);
    await key.types.updateType({ type: { key: "asked", optIn: true }, updateMask: { paths: ["opt_in"] } });
    // It must be asked for from now on, and this user has not.
    const { timeline } = await told(
      id,
      ({ reason }) => reason === Reason.USER_OPTED_OUT || reason === Reason.TYPE_DISABLED,
    );
    expect(timeline.at(-1)?.step).toBe(0);
    expect(await holdsOf(other)).toHaveLength(1);
    pass(HOUR);
    expect(await sink.of("email", id)).toEqual([]);
  });
});
