import { Code, ConnectError } from "@connectrpc/connect";
import postgres from "postgres";
import { afterAll, expect, test } from "vitest";
import { BatchKind, BatchState } from "#gen/posthorn/v1/batch_service_pb.ts";
import { Reason, Status } from "#gen/posthorn/v1/notification_pb.ts";
import { Digest_Mode } from "#gen/posthorn/v1/preferences_service_pb.ts";
import { BatchRule_Mode } from "#gen/posthorn/v1/type_service_pb.ts";
import { BatchRole } from "#src/batches/role.ts";
import { platformOfFile } from "../support/platform.ts";
import { wrongInAppCounters, wrongInboxes } from "../support/recount.ts";
import { testServices } from "../support/services.ts";
import { until } from "../support/until.ts";

// Two nodes with workers and schedulers of their own: whatever can happen to a batch happens at the same time.
const services = await testServices();
const a = await platformOfFile({ services });
const b = await platformOfFile({ services, tenant: a.tenant });
const nodes = [a.key, b.clients(a.tenant.apiKey)] as const;
const sql = postgres(services.databaseUrl, { max: 2, onnotice: () => undefined });
afterAll(() => sql.end());
const { tenantId } = a.tenant;

const USERS = ["ann", "bob", "cho", "dee"];
/** Hers come in digests of a day that does not come: each is closed before its time. */
const COLLECTOR = "eve";
/** Her hour is full with the first: her batches go into digests. */
const CAPPED = "fay";
const EVERYBODY = [...USERS, COLLECTOR, CAPPED];
const FAR_OFF = { mode: Digest_Mode.WEEKLY, days: [(new Date().getUTCDay() + 3) % 7] };
const on = (n: number) => nodes[n % 2] ?? a.key;

test("each notification arrives once, whoever joins, closes, cancels and changes the rules at the same time", async () => {
  const reason = "a race";
  await a.key.preferences.updatePreferences({ userId: COLLECTOR, preferences: { digest: FAR_OFF }, reason });
  const capOf = (maxPerHour: number) => ({ hourlyCap: { enabled: maxPerHour > 0, maxPerHour: maxPerHour || 1 } });
  await a.key.preferences.updatePreferences({ userId: CAPPED, preferences: capOf(1), reason });
  const window = { seconds: 1n };
  await a.key.types.createType({ type: { key: "trailing", batching: { batchable: true, maxSize: 4, window } } });
  const batching = { batchable: true, maxSize: 3, window, mode: BatchRule_Mode.LEADING };
  await a.key.types.createType({ type: { key: "leading", batching } });
  const sent: string[] = [];
  const sendSome = async (n: number) => {
    const items = Array.from({ length: 1 + (n % 6) }, (_, k) => ({
      to: { userIds: [EVERYBODY[(n + k) % EVERYBODY.length] ?? ""] },
      type: (n + k) % 3 === 0 ? "leading" : "trailing",
      content: { title: `${n}.${k}` },
    }));
    const { results } = await on(n).send.sendBatch({ items });
    for (const { result } of results)
      if (result.case === "response") sent.push(...result.value.results.map(({ notificationId }) => notificationId));
  };
  const cancelSome = async (n: number) => {
    const ids = sent.slice(-3).filter((_, k) => (n + k) % 2 === 0);
    if (ids.length > 0) await on(n).send.cancelNotifications({ ids });
  };
  const change = (n: number) =>
    on(n).preferences.updatePreferences({
      userId: EVERYBODY[n % EVERYBODY.length] ?? "",
      preferences: { batching: { enabled: n % 3 !== 0, maxSize: 2 + (n % 4) } },
      reason,
    });
  const closeOpen = async () => {
    const { batches } = await a.key.batches.listBatches({ state: BatchState.OPEN, pageSize: 200 });
    const early = batches.filter(({ kind }, n) => kind === BatchKind.DIGEST || n % 3 === 0);
    // One of which nobody is left is gone when it closes.
    const unlessGone = (error: unknown) => expect(ConnectError.from(error).code).toBe(Code.NotFound);
    await Promise.all(
      nodes.flatMap((node) => early.map(({ id }) => node.batches.closeBatch({ id, reason }).catch(unlessGone))),
    );
    return batches;
  };
  let sending = 4;
  await Promise.all([
    (async () => {
      while (sending > 0) await closeOpen();
    })(),
    ...[0, 1, 2, 3].map(async (sender) => {
      for (let n = 0; n < 40; n++) await sendSome(4 * n + sender);
      sending--;
    }),
    (async () => {
      for (let n = 0; n < 40; n++) await cancelSome(n);
    })(),
    (async () => {
      for (let n = 0; n < 20; n++) await change(n);
    })(),
    (async () => {
      for (let n = 0; n < 5; n++)
        await on(n).types.updateType({
          type: { key: "trailing", batching: { batchable: true, maxSize: 4 - (n % 2), window } },
          updateMask: { paths: ["batching"] },
        });
    })(),
  ]);
  await until(
    () => a.key.send.listNotifications({ filter: { userId: CAPPED, statuses: [Status.BATCHED] }, pageSize: 200 }),
    ({ notifications: some }) => some.length > 0 && some.every(({ reason }) => reason === Reason.HOURLY_CAP),
  );
  await a.key.preferences.updatePreferences({ userId: CAPPED, preferences: capOf(0), reason });
  await until(
    async () => {
      await closeOpen();
      return sql`select id from notifications where tenant_id = ${tenantId} and status < ${Status.DELIVERED}`;
    },
    (open) => open.length === 0,
  );
  await until(closeOpen, (open) => open.length === 0);

  // By id, as stored: in how many entries it stands, by itself or as a member.
  const rows = await sql<{ id: string; userId: string; status: number; times: number }[]>`
    select n.id, n.user_id as "userId", n.status, (
      select count(*)::int from inbox i join notifications e on e.tenant_id = i.tenant_id and e.id = i.notification_id
      where i.tenant_id = n.tenant_id and (e.id = n.id
        or e.batch_role = ${BatchRole.WHOLE} and e.batch_id = n.batch_id and n.batch_role = ${BatchRole.MERGED})
    ) as times
    from notifications n where n.tenant_id = ${tenantId} and n.batch_role is distinct from ${BatchRole.WHOLE}`;
  expect(rows.map(({ id }) => id).sort()).toEqual(sent.toSorted());
  for (const { id, status, times } of rows) {
    expect([id, status]).toEqual([id, times === 1 ? Status.DELIVERED : Status.CANCELLED]);
    expect([id, times]).toEqual([id, status === Status.DELIVERED ? 1 : 0]);
  }

  // And as the recipients see it: no title twice, none missing. (A digest names but the first of each category.)
  const seen: string[] = [];
  for (const userId of USERS) {
    for (let pageToken = ""; ; ) {
      const page = await a.key.inbox.listEntries({ userId, pageToken, pageSize: 100 });
      for (const { content } of page.entries) {
        const lines = content?.data?.batch === undefined ? [content?.title ?? ""] : content.body.split("\n");
        seen.push(...lines);
      }
      pageToken = page.nextPageToken;
      if (pageToken === "") break;
    }
  }
  expect(new Set(seen).size).toBe(seen.length);
  const delivered = rows.filter(({ status }) => status === Status.DELIVERED);
  expect(seen.length).toBe(delivered.filter(({ userId }) => USERS.includes(userId)).length);

  const { batches } = await a.key.batches.listBatches({ state: BatchState.CLOSED, pageSize: 200 });
  expect(batches.length).toBeGreaterThan(10);
  expect(batches.filter(({ kind }) => kind === BatchKind.DIGEST).length).toBeGreaterThan(0);
  for (const { size, maxSize, delivered, failed } of batches) {
    expect(size).toBeLessThanOrEqual(maxSize);
    expect(delivered + failed).toBe(size);
  }
  // And its record says what it became, and of how many: whoever comes second takes nothing back.
  const unrecorded = await sql`
    select n.id from notifications n where n.tenant_id = ${tenantId} and n.batch_role = ${BatchRole.WHOLE} and not exists (
      select from batches b where b.tenant_id = n.tenant_id and b.id = n.batch_id and b.notification_id = n.id
        and b.size = (select count(*) from notifications m where m.tenant_id = b.tenant_id and m.batch_id = b.id
          and m.batch_role = ${BatchRole.MERGED}))`;
  expect(unrecorded).toEqual([]);
  expect(await wrongInboxes(sql)).toEqual([]);
  expect(await wrongInAppCounters(sql)).toEqual([]);
}, 120_000);
