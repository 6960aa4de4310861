import { clone, type MessageInitShape } from "@bufbuild/protobuf";
import { timestampDate, timestampFromDate } from "@bufbuild/protobuf/wkt";
import fc from "fast-check";
import { Redis } from "ioredis";
import { connect } from "nats";
import postgres from "postgres";
import { afterAll, expect, test } from "vitest";
import { Scope } from "#gen/posthorn/v1/admin_service_pb.ts";
import { type ExplainedEntry, ExplainedEntrySchema, Gate, GateAnswer } from "#gen/posthorn/v1/explain_pb.ts";
import { Channel, Priority, Reason, Status } from "#gen/posthorn/v1/notification_pb.ts";
import { Digest_Mode } from "#gen/posthorn/v1/preferences_service_pb.ts";
import type { SendRequestSchema } from "#gen/posthorn/v1/send_service_pb.ts";
import { BatchRule_Mode, DigestRule } from "#gen/posthorn/v1/type_service_pb.ts";
import { plain as plainArray } from "#src/store/arrays.ts";
import { batching, HOUR, MINUTE } from "../batches/setup.ts";
import { platformOfFile, startTestPlatform } from "../support/platform.ts";
import { refusalOf } from "../support/refusal.ts";
import { testServices } from "../support/services.ts";
import { contentOf } from "../support/tenant-tables.ts";
import { until } from "../support/until.ts";

// What is foreseen for a Send is what then happens, and foreseeing it leaves no trace. The clock stands still until it is
// moved, so that both are asked about the same instant.

const LIMITED = { POSTHORN_USER_BURST: "3", POSTHORN_USER_MAX_PER_MINUTE: "4", POSTHORN_USER_MAX_PER_HOUR: "6" };
const services = await testServices();
let now = new Date("2026-12-01T10:20:00Z");
const node = await platformOfFile({
  services,
  clock: () => now,
  env: LIMITED,
});
const { key } = node;
const { newType, newUser, prefer, send } = batching(node);
const sql = postgres(services.databaseUrl, { max: 2, onnotice: () => undefined });
afterAll(() => sql.end());

type Request = Exclude<MessageInitShape<typeof SendRequestSchema>, { $typeName: string }>;

const preview = (user: string, more: Partial<Request> = {}, at?: Date) =>
  key.send.previewSend({
    request: { to: { userIds: [user] }, content: { title: "Hi" }, ...more },
    ...(at === undefined ? {} : { time: timestampFromDate(at) }),
  });

const step = (ms: number) => {
  now = new Date(now.getTime() + ms);
};

/** Nothing of a user's is due or undecided, so that what follows meets nothing that is on its way. */
const quiet = (user: string) =>
  until(
    () => sql<{ what: string }[]>`
      select status::text || ' ' || reason as what from notifications
      where user_id = ${user} and (status = 1 or due_at <= ${now})
      union all select 'batch ' || key from batches
      where user_id = ${user} and state in (1, 2) and flush_at <= ${now}`,
    (found) => found.length === 0,
  );

const TYPES = {
  plain: await newType(undefined),
  expiring: await newType(undefined, { defaultTtl: { seconds: 5400n }, category: "hobby" }),
  digested: await newType(undefined, { digest: DigestRule.ALWAYS }),
  cheap: await newType(undefined, { digest: DigestRule.NEVER, value: 1, urgency: 1 }),
  batched: await newType({ batchable: true, maxSize: 3, window: { seconds: 1200n } }),
  sliding: await newType({ batchable: true, sliding: true, window: { seconds: 900n } }),
  leading: await newType({ batchable: true, mode: BatchRule_Mode.LEADING, window: { seconds: 1200n } }),
  patient: await newType(undefined, { timing: { maxWait: { seconds: 28_800n } } }),
};
type Kind = keyof typeof TYPES;

const time = fc.constantFrom("00:00", "06:30", "10:00", "10:20", "12:00", "22:00", "23:59");
const preferences = fc.record(
  {
    timeZone: fc.constantFrom("UTC", "Europe/Berlin", "Asia/Kolkata", "Pacific/Chatham", "America/New_York"),
    quietHours: fc.record({ enabled: fc.boolean(), startTime: time, endTime: time, allowCritical: fc.boolean() }),
    doNotDisturb: fc.record({
      enabled: fc.boolean(),
      periods: fc.array(fc.record({ dayOfWeek: fc.nat({ max: 6 }), startTime: time, endTime: time }), { maxLength: 2 }),
    }),
    weekendsEnabled: fc.boolean(),
    minimumPriority: fc.constantFrom(Priority.LOW, Priority.NORMAL, Priority.HIGH),
    channels: fc.record({
      email: fc.boolean(),
      inApp: fc.constantFrom(true, true, false),
      emailDigestOnly: fc.boolean(),
    }),
    hourlyCap: fc.record({ enabled: fc.boolean(), maxPerHour: fc.integer({ min: 1, max: 3 }) }),
    digest: fc.record({ mode: fc.constantFrom(Digest_Mode.IMMEDIATE, Digest_Mode.HOURLY, Digest_Mode.DAILY), time }),
    batching: fc.record({ enabled: fc.boolean(), maxSize: fc.integer({ min: 2, max: 3 }) }),
    categories: fc.constantFrom({}, { hobby: { enabled: false } }),
  },
  { requiredKeys: [] },
);
/** In which hours the user usually looks. */
const looking = fc.constantFrom([], [13], [1, 18], [10]);
async function looksAt(user: string, hours: readonly number[]): Promise<void> {
  const weights = Array.from({ length: 48 }, (_, cell) => (hours.includes(cell % 24) ? 100 : 0));
  await sql`insert into looks values (${node.tenant.tenantId}, ${user}, ${plainArray(weights)}::float8[],
    ${new Date(now.getTime() - 20 * 24 * HOUR)}, ${now})`;
}
const asked = fc.record({
  kind: fc.constantFrom(...(Object.keys(TYPES) as Kind[])),
  priority: fc.constantFrom(Priority.LOW, Priority.NORMAL, Priority.HIGH, Priority.CRITICAL),
  channels: fc.constantFrom([Channel.IN_APP], [Channel.IN_APP, Channel.EMAIL], [Channel.EMAIL]),
  ttlMs: fc.constantFrom(undefined, 30_000, 4 * HOUR),
  bypassRateLimit: fc.constantFrom(false, false, true),
  batchable: fc.constantFrom(undefined, false),
});
/** What went before, and how long ago: after a long time all of it would have gone, and counted, at its own hour. */
const moments = fc.oneof(
  fc.record({ before: fc.nat({ max: 5 }), ms: fc.constant(0) }),
  fc.record({ before: fc.nat({ max: 2 }), ms: fc.nat({ max: 5000 }) }),
  fc.record({ before: fc.constant(0), ms: fc.nat({ max: 36 * HOUR }) }),
);

/** The first decision, without what cannot be known before: the id of a batch that it opens. */
function firstDecision(timeline: readonly ExplainedEntry[], opens: boolean): ExplainedEntry | undefined {
  const found = timeline.find(({ decision }) => decision !== undefined);
  if (found === undefined) return undefined;
  const entry = clone(ExplainedEntrySchema, found);
  if (opens)
    for (const verdict of [
      ...(entry.entry?.verdicts ?? []),
      ...(entry.decision?.channels ?? []).flatMap(({ verdict }) => (verdict ? [verdict] : [])),
    ])
      verdict.batchId = "";
  return entry;
}

/** Foresees a Send, sends it then, and compares; answers the decision. */
async function comesTrue(
  user: string,
  type: string,
  request: Partial<Request>,
  ms: number,
): Promise<ExplainedEntry | undefined> {
  const at = new Date(now.getTime() + ms);
  const { timeline } = await preview(user, { type, ...request }, at);
  now = at;
  await quiet(user);
  const { notificationId: id } = await send(user, type, "Hi", request);
  const happened = (await key.send.explainNotification({ id })).timeline;
  const opens = timeline.some(({ entry }) => entry?.verdicts.some(({ until, batchId }) => until && batchId === ""));
  const foreseen = firstDecision(timeline, false);
  expect(foreseen).toEqual(firstDecision(happened, opens));
  return foreseen;
}

test("what is foreseen for an instant is what then happens, and why", async () => {
  const outcomes = new Map<string, number>();
  await fc.assert(
    fc.asyncProperty(
      preferences,
      asked,
      moments,
      looking,
      async (wishes, { kind, ttlMs, batchable, ...rest }, { before, ms }, hours) => {
        // Away from the hour, so that what went before does not come with a digest meanwhile.
        step(HOUR - ((now.getTime() - 20 * MINUTE) % HOUR));
        const user = newUser();
        await looksAt(user, hours);
        for (let n = 0; n < before; n++) await send(user, TYPES[kind], "Before");
        await prefer(user, wishes);
        await quiet(user);
        const request: Partial<Request> = {
          type: TYPES[kind],
          ...rest,
          channels: [...rest.channels],
          ...(batchable === undefined ? {} : { batchable }),
          ...(ttlMs === undefined ? {} : { expiry: { case: "ttl", value: { seconds: BigInt(ttlMs / 1000) } } }),
        };
        const foreseen = await comesTrue(user, TYPES[kind], request, ms);
        const { status = 0, reason = 0 } = foreseen?.entry ?? {};
        outcomes.set(`${status} ${reason}`, (outcomes.get(`${status} ${reason}`) ?? 0) + 1);
      },
    ),
    { numRuns: 40, interruptAfterTimeLimit: 300_000 },
  );
  // Else it would have shown little.
  expect(outcomes.size).toBeGreaterThanOrEqual(5);
}, 600_000);

test("what waits for a good hour is foreseen to come in it", async () => {
  step(HOUR);
  const user = newUser();
  const soon = (now.getUTCHours() + 3) % 24;
  await looksAt(user, [soon]);
  const decided = await comesTrue(user, TYPES.patient, {}, 5 * MINUTE);
  expect(decided?.entry).toMatchObject({ status: Status.HELD, reason: Reason.OPTIMAL_TIMING });
  expect(decided?.decision?.channels[0]?.gates.find(({ answer }) => answer === GateAnswer.HELD)).toMatchObject({
    gate: Gate.OPTIMAL_TIMING,
    rule: { byType: true, goodHours: [soon], maxWait: { seconds: 28_800n } },
  });
  const { timeline } = await preview(user, { type: TYPES.patient });
  expect(timeline.map(({ entry }) => entry?.status)).toEqual([
    Status.ACCEPTED,
    Status.HELD,
    Status.ACCEPTED,
    Status.DELIVERED,
  ]);
});

test.each(["batched", "sliding", "leading"] as const)("it joins what is open: %s", async (kind) => {
  step(HOUR);
  const user = newUser();
  const seen = [];
  for (let n = 0; n < 4; n++) {
    const decided = await comesTrue(user, TYPES[kind], {}, 2 * MINUTE);
    const [verdict] = decided?.entry?.verdicts ?? [];
    seen.push([decided?.entry?.status, verdict?.until && timestampDate(verdict.until).getTime() - now.getTime()]);
  }
  // Full with the third; or moved on with each; or led by the first.
  const minutes = { batched: [20, 18, 0, 20], sliding: [15, 15, 15, 15], leading: [undefined, 18, 16, 14] }[kind];
  expect(seen).toEqual(
    minutes.map((left) => [left === undefined ? Status.DELIVERED : Status.BATCHED, left && left * MINUTE]),
  );
});

test("limits, caps, batches, keys, queues, caches and counters stay as they are; an answer is a read in the audit log", async () => {
  // Where nobody else is about.
  await using alone = await startTestPlatform({ clock: () => now, env: LIMITED });
  const own = batching(alone);
  await using redis = disposed(new Redis(alone.services.redisUrl), (each) => each.disconnect());
  await using nats = disposed(await connect({ servers: alone.services.natsUrl }), (each) => each.close());
  await using tables = disposed(postgres(alone.services.databaseUrl, { max: 1, onnotice: () => undefined }), (each) =>
    each.end(),
  );
  const { namespace } = alone.services;

  async function inRedis(): Promise<Record<string, string>> {
    const keys = (await redis.it.keys(`${namespace}:*`)).sort();
    const values = await Promise.all(keys.map((each) => redis.it.dumpBuffer(each)));
    return Object.fromEntries(keys.map((each, n) => [each, values[n]?.toString("base64") ?? ""]));
  }

  async function inQueues(): Promise<Record<string, number[]>> {
    const streams: Record<string, number[]> = {};
    for await (const { config, state } of (await nats.it.jetstreamManager()).streams.list())
      if (config.subjects.some((each) => each.includes(namespace)))
        streams[config.name] = [state.messages, state.last_seq];
    return streams;
  }

  const types = {
    plain: await own.newType(undefined),
    digested: await own.newType(undefined, { digest: DigestRule.ALWAYS }),
    batched: await own.newType({ batchable: true, maxSize: 3, window: { seconds: 1200n } }),
    leading: await own.newType({ batchable: true, mode: BatchRule_Mode.LEADING, window: { seconds: 1200n } }),
  };
  const user = own.newUser();
  await own.prefer(user, { hourlyCap: { enabled: true, maxPerHour: 2 } });
  for (const type of Object.values(types)) await own.send(user, type, "Before");
  await own.send(user, types.plain, "Before", { dedupKey: "taken" });
  // What was decided is acknowledged a little later.
  await until(inQueues, (queues) => Object.values(queues).every(([messages]) => messages === 0));
  const state = async () => {
    const { audit_entries = "0", ...others } = await contentOf(tables.it, alone.tenant.tenantId);
    return {
      tables: others,
      audited: Number.parseInt(audit_entries, 10),
      redis: await inRedis(),
      queues: await inQueues(),
    };
  };
  const { audited, ...was } = await state();
  expect(Object.keys(was.redis).length).toBeGreaterThan(0);
  expect(Object.keys(was.queues).length).toBeGreaterThan(0);
  let answers = 0;
  const foresee = (who: string, more: Partial<Request>, ms = 0) => {
    answers++;
    return alone.key.send.previewSend({
      request: { to: { userIds: [who] }, content: { title: "Hi" }, ...more },
      time: timestampFromDate(new Date(now.getTime() + ms)),
    });
  };
  for (const who of [user, own.newUser()]) {
    for (const type of Object.values(types)) {
      for (const ms of [0, 30_000, 5 * HOUR]) await foresee(who, { type, dedupKey: "new" }, ms);
      await foresee(who, { type, bypassRateLimit: true, channels: [Channel.IN_APP, Channel.EMAIL] });
    }
  }
  expect((await foresee(user, { dedupKey: "taken" })).duplicateOf).not.toBe("");
  const { audited: then, ...is } = await state();
  expect(then - audited).toBe(answers);
  const { entries } = await alone.key.admin.listAuditEntries({ pageSize: 1 });
  expect(entries).toMatchObject([{ action: "preferences.read", target: `user:${user}` }]);
  // What has expired meanwhile would have done so anyway.
  const left = Object.entries(was.redis).filter(([name]) => name in is.redis);
  expect(is).toEqual({ ...was, redis: Object.fromEntries(left) });
});

function disposed<T>(it: T, close: (it: T) => unknown): { it: T } & AsyncDisposable {
  return {
    it,
    async [Symbol.asyncDispose]() {
      await close(it);
    },
  };
}

test("a hold is followed to its end", async () => {
  const user = newUser();
  const quietHours = { enabled: true, startTime: "00:00", endTime: "23:00" };
  await prefer(user, { quietHours, timeZone: "UTC" });
  const at = new Date(now.getTime() - (now.getTime() % (24 * HOUR)) + 34 * HOUR);
  const { timeline, timeZone } = await preview(user, {}, at);
  expect(timeZone).toBe("UTC");
  expect(timeline.map(({ entry }) => [entry?.status, entry?.time])).toEqual([
    [Status.ACCEPTED, timestampFromDate(at)],
    [Status.HELD, timestampFromDate(at)],
    [Status.ACCEPTED, timestampFromDate(new Date(at.getTime() + 13 * HOUR))],
    [Status.DELIVERED, timestampFromDate(new Date(at.getTime() + 13 * HOUR))],
  ]);
  expect(timeline[1]?.decision?.channels[0]?.gates.find(({ answer }) => answer === GateAnswer.HELD)).toMatchObject({
    gate: Gate.QUIET_HOURS,
    rule: { startTime: "00:00", endTime: "23:00" },
  });
});

test("a later time is waited for first, and a full limit gives the turn that a Send would get", async () => {
  const user = newUser();
  const schedule = { case: "scheduleTime" as const, value: timestampFromDate(new Date(now.getTime() + HOUR)) };
  expect((await preview(user, { schedule })).timeline.map(({ entry }) => entry?.status)).toEqual([
    Status.ACCEPTED,
    Status.SCHEDULED,
    Status.ACCEPTED,
    Status.DELIVERED,
  ]);
  for (let n = 0; n < 3; n++) await send(user, TYPES.cheap, "Before");
  const { timeline } = await preview(user, { type: TYPES.cheap });
  expect(timeline.map(({ entry }) => entry?.status)).toEqual([
    Status.ACCEPTED,
    Status.HELD,
    Status.ACCEPTED,
    Status.DELIVERED,
  ]);
  expect(timeline[1]?.entry).toMatchObject({ rateLimit: { window: Reason.USER_BURST_LIMIT, usage: 3, limit: 3 } });
});

test("who may, and what is refused", async () => {
  const user = newUser();
  const only = async (...scopes: Scope[]) => {
    const { secret } = await key.admin.createApiKey({ displayName: "few", scopes });
    return node.clients(secret).send;
  };
  const request = { to: { userIds: [user] }, content: { title: "Hi" } };
  const reads = await only(Scope.NOTIFICATIONS_READ);
  expect(await refusalOf(reads.previewSend({ request }))).toMatchObject({
    reason: "SCOPE_MISSING",
    metadata: { scope: "SCOPE_PREFERENCES_READ" },
  });
  const both = await only(Scope.NOTIFICATIONS_READ, Scope.PREFERENCES_READ);
  expect((await both.previewSend({ request })).timeline).toHaveLength(2);
  expect(await refusalOf(both.previewSend({ request: { ...request, bypassRateLimit: true } }))).toMatchObject({
    metadata: { scope: "SCOPE_BYPASS_RATE_LIMIT" },
  });
  const refused = (more: object) => refusalOf(preview(user, more));
  expect((await refused({ type: "nothing" })).reason).toBe("NOT_FOUND");
  for (const more of [
    { to: { userIds: [user, newUser()] } },
    { to: { userIds: [user], everyone: true } },
    { idempotencyKey: "x" },
    { collapseKey: "x" },
    { content: { title: "" } },
  ])
    expect((await refused(more)).reason).toBe("INVALID_REQUEST");
  expect((await refusalOf(preview(user, {}, new Date(now.getTime() + 500 * 24 * HOUR)))).reason).toBe(
    "INVALID_REQUEST",
  );
  // A time in the past means now.
  const { timeline } = await preview(user, {}, new Date(now.getTime() - HOUR));
  expect(timeline[0]?.entry?.time).toEqual(timestampFromDate(now));
});
