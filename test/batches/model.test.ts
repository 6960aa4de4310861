// Batches against a model (model.ts): senders, closers, cancels, what expires, changed preferences and types, clocks that
// step, users whose hourly cap is full, and processes that die before or after any of their commits, in any order.
import { create, fromBinary } from "@bufbuild/protobuf";
import fc from "fast-check";
import { Registry } from "prom-client";
import { expect, test } from "vitest";
import { ContentSchema, Reason, Status } from "#gen/posthorn/v1/notification_pb.ts";
import { Digest_Mode, PreferencesSchema } from "#gen/posthorn/v1/preferences_service_pb.ts";
import { BatchRule_Mode, NotificationTypeSchema } from "#gen/posthorn/v1/type_service_pb.ts";
import { closeEarly } from "#src/batches/close-early.ts";
import type { Request, Reservation } from "#src/limits/notification-limits.ts";
import { cancelByIds } from "#src/notifications/cancel.ts";
import { type CloseDeps, closeDue } from "#src/pipeline/close/close.ts";
import { reconsiderRest } from "#src/pipeline/reconsider/reconsider.ts";
import { endingBy } from "#src/pipeline/route/ended-by.ts";
import { decide } from "#src/pipeline/route/gates/decide.ts";
import { holdingBy } from "#src/pipeline/route/held-by.ts";
import { intoDigest } from "#src/pipeline/route/into-digest.ts";
import { type RouteDeps, route } from "#src/pipeline/route/route.ts";
import { turnsOfWholes } from "#src/pipeline/route/turns-of-wholes.ts";
import { compile } from "#src/preferences/compile.ts";
import { lockPreferences, readLevels, savePreferences } from "#src/preferences/queries.ts";
import { recordRuleChange, touchDefaults } from "#src/preferences/rule-changes.ts";
import { zoneClock } from "#src/preferences/zone-clock.ts";
import { releaseDue } from "#src/schedule/release.ts";
import type { Store } from "#src/store/store.ts";
import { filterEvaluator } from "#src/subscriptions/evaluate.ts";
import { createLogger } from "#src/telemetry/logger.ts";
import { createMetrics } from "#src/telemetry/metrics.ts";
import { changeType, findType, insertTypes, lockType } from "#src/types/queries.ts";
import { definitionOf } from "#src/types/type.ts";
import { onPostgres } from "../support/on-postgres.ts";
import { wait } from "../support/waiting.ts";
import { FIRST_RULES, FIRST_WISH, type Item, Model, type Rule, rule, TYPES, USERS, type Wish } from "./model.ts";

const { store, sql, time, clock, newId, tenant, reconcile } = await onPostgres();
const log = createLogger({ serviceName: "test", logLevel: "silent", logFormat: "json" });
const metrics = createMetrics(new Registry());
const HOUR = 3_600_000;
const resting = {
  ...{ store, decide, metrics, log, clockOf: () => zoneClock("UTC"), filters: filterEvaluator() },
  live: { statusChanged: () => undefined },
};

const definition = (key: string, { batchable, maxSize, windowMs, leading, sliding, maxWindowMs }: Rule) =>
  definitionOf(
    create(NotificationTypeSchema, {
      key,
      batching: {
        ...{ batchable, maxSize, sliding },
        mode: leading ? BatchRule_Mode.LEADING : BatchRule_Mode.TRAILING,
        window: { seconds: BigInt(windowMs / 1000) },
        maxWindow: { seconds: BigInt(maxWindowMs / 1000) },
      },
    }),
  );

/** The real thing: two workers and two closers on one database, of which each may die at its commits. */
class Real {
  readonly tenantId = tenant().tenantId;
  readonly ids: string[] = [];
  /** Commits until the process dies; even: before the commit, odd: after it. */
  fuse = Number.POSITIVE_INFINITY;
  readonly #mortal: Store = {
    ...store,
    tenant: async (tenantId, work) => {
      const result = await store.tenant(tenantId, async (tx) => {
        const result = await work(tx, () => undefined);
        if (this.fuse-- === 0) throw new Died();
        return result;
      });
      if (this.fuse-- === 0) throw new Died();
      return result;
    },
    [Symbol.asyncDispose]: async () => undefined,
  };
  readonly #loadPreferences = async (_: string, userIds: readonly string[]) => {
    const { levels, optIn } = await store.tenantDb(this.tenantId, (db) => readLevels(db, this.tenantId, userIds));
    return new Map(userIds.map((userId) => [userId, compile(levels(userId), optIn, zoneClock)]));
  };
  readonly #findType = (_: string, key: string) =>
    store.tenantDb(this.tenantId, (db) => findType(db, this.tenantId, key));
  readonly #route: RouteDeps = {
    ...{ store: this.#mortal, clock, metrics, log, newId, decide },
    ...{ findType: this.#findType, reloadType: this.#findType },
    ...{ loadPreferences: this.#loadPreferences, reloadPreferences: this.#loadPreferences },
    reserve: async (_, wanted, now) => wanted.map((each) => this.#reserved(each, now)),
    arrived: () => undefined,
    statusChanged: () => undefined,
    batchJoined: () => undefined,
  };
  readonly #close: CloseDeps = {
    ...{ store: this.#mortal, newId, endedBy: endingBy(decide), heldBy: holdingBy(decide), log, metrics, slot: 0 },
    // What is queued may be lost: `settle` looks for it as the reconciler does.
    queue: { enqueue: async () => undefined, enqueueFanout: async () => undefined },
    findType: this.#findType,
    ...{ loadPreferences: this.#loadPreferences, reloadPreferences: this.#loadPreferences },
    turnsOf: turnsOfWholes((...args) => this.#route.reserve(...args)),
    intoDigest: intoDigest(decide),
    poured: () => undefined,
    closed: () => undefined,
    waits: () => undefined,
  };

  /** Whose hourly cap is full. What waits for that instead of a digest is let through. */
  readonly capped = new Set<string>();

  #reserved({ userId, cap }: Request, now: Date): Reservation {
    if (cap?.over !== "digest" || !this.capped.has(userId)) return { allowed: true };
    const resetAt = new Date((Math.floor(now.getTime() / HOUR) + 1) * HOUR);
    const counts = { usage: 1, limit: 1, perHour: 1 };
    return { allowed: false, reason: Reason.HOURLY_CAP, until: resetAt, resetAt, slot: false, digest: true, ...counts };
  }

  async begin(): Promise<void> {
    const types = Object.entries(FIRST_RULES).map(([key, own]) => definition(key, own));
    await store.tenantDb(this.tenantId, (db) => insertTypes(db, this.tenantId, types, clock()));
    for (const user of USERS) await this.wish(user, FIRST_WISH);
  }

  async send(items: readonly Item[]): Promise<string[]> {
    const waiting = items.map(({ user, type }) => ({ userId: user, type }));
    const ids = await wait({ store, newId, clock }, this.tenantId, waiting);
    for (const [n, { expiresAt }] of items.entries())
      if (expiresAt !== undefined)
        await sql`update notifications set expires_at = ${new Date(expiresAt)} where id = ${ids[n] ?? ""}`;
    this.ids.push(...ids);
    return ids;
  }

  /** Twice, as when a message is delivered again while the first worker is still at it. */
  async route(ids: readonly string[]): Promise<void> {
    const context = { slot: 0, epoch: 7 };
    await this.survive(() => both(() => route(this.#route, this.tenantId, ids, context)));
  }

  async close(): Promise<void> {
    await this.survive(() => both(() => closeDue(this.#close, clock(), 100)));
  }

  /** What is ACCEPTED is decided, wherever its queue message has gone. */
  async settle(): Promise<void> {
    for (;;) {
      const rows = await sql<{ id: string }[]>`
        select id from notifications where tenant_id = ${this.tenantId} and status = ${Status.ACCEPTED} order by id`;
      if (rows.length === 0) return;
      await this.route(rows.map(({ id }) => id));
    }
  }

  async cancel(id: string): Promise<void> {
    await store.tenant(this.tenantId, (tx) =>
      cancelByIds(tx, this.tenantId, [id], { actor: "t", now: clock(), slot: 0 }),
    );
  }

  async wish(userId: string, { enabled, maxSize, digest }: Wish): Promise<void> {
    const owner = { tenantId: this.tenantId, userId };
    const mode = digest ? Digest_Mode.HOURLY : Digest_Mode.IMMEDIATE;
    const preferences = create(PreferencesSchema, { batching: { enabled, maxSize }, digest: { mode } });
    await store.tenantDb(this.tenantId, async (db) => {
      const { revision } = await lockPreferences(db, owner, clock());
      await savePreferences(db, owner, { preferences, revision: revision + 1, updatedAt: clock() });
      await reconcile(db, this.tenantId, [userId], clock());
    });
    await this.#settleRules();
  }

  async change(type: string, changed: Rule): Promise<void> {
    await store.tenantDb(this.tenantId, async (db) => {
      const row = await lockType(db, this.tenantId, type);
      if (row === undefined) throw new Error("no type");
      await changeType(db, row, { batching: definition(type, changed).batching }, clock());
      await touchDefaults(db, this.tenantId, clock());
      await recordRuleChange(db, { tenantId: this.tenantId, userId: "", type }, clock());
    });
    await this.#settleRules();
  }

  async #settleRules(): Promise<void> {
    while ((await reconsiderRest(resting, clock())).more);
    await releaseDue({ store, queue: this.#close.queue }, clock(), 1000);
    await this.settle();
  }

  /** The open one of a key of the model's. */
  async closeEarly(key: string): Promise<void> {
    const [user = "", kind = ""] = key.split(" ");
    const like = { digest: "d:%:1", late: "d:%:late" }[kind] ?? `b:${kind}:%`;
    const [batch] = await sql<{ id: string }[]>`
      select id from batches where tenant_id = ${this.tenantId} and user_id = ${user} and state = 1 and key like ${like}`;
    await store.tenantDb(this.tenantId, (db) => closeEarly(db, this.tenantId, batch?.id ?? newId(), clock()));
  }

  /** Each that dies is started again. */
  async survive(work: () => Promise<unknown>): Promise<void> {
    for (;;) {
      const [outcome] = await Promise.allSettled([work()]);
      if (outcome.status === "fulfilled") return;
      if (!(outcome.reason instanceof Died)) throw outcome.reason;
    }
  }

  async arrived(): Promise<string[][]> {
    const rows = await sql<{ id: string; content: Uint8Array; whole: boolean }[]>`
      select n.id, n.content, n.batch_role is not distinct from 4 as whole
      from inbox i join notifications n on n.tenant_id = i.tenant_id and n.id = i.notification_id
      where i.tenant_id = ${this.tenantId}`;
    return rows.map(({ id, content, whole }) => {
      if (!whole) return [id];
      const { batch } = fromBinary(ContentSchema, content).data as {
        batch: { notificationIds: string[]; count: number };
      };
      expect(batch.notificationIds).toHaveLength(batch.count);
      return batch.notificationIds;
    });
  }
}

/** As a process that dies looks to whoever it was talking to. */
class Died extends Error {
  readonly code = "CONNECTION_CLOSED";
}

/** At the same time; when one dies, the other goes on. */
async function both(work: () => Promise<unknown>): Promise<void> {
  for (const outcome of await Promise.allSettled([work(), work()]))
    if (outcome.status === "rejected") throw outcome.reason;
}

type Command = fc.AsyncCommand<Model, Real>;

class Send implements Command {
  readonly items: readonly { user: string; type: string; ttlMs: number | undefined }[];
  readonly fuse: number;
  constructor(items: Send["items"], fuse: number) {
    this.items = items;
    this.fuse = fuse;
  }
  check = () => true;
  async run(model: Model, real: Real) {
    const now = clock().getTime();
    const items = this.items.map(({ user, type, ttlMs }) => ({ user, type, expiresAt: ttlMs && now + ttlMs }));
    const ids = await real.send(items);
    ids.forEach((id, index) => {
      model.items.set(id, items[index] as Item);
    });
    real.fuse = this.fuse;
    await real.route(ids);
    real.fuse = Number.POSITIVE_INFINITY;
    model.decide(ids, now);
    await compare(model, real);
  }
  toString = () =>
    `send(${this.items.map(({ user, type, ttlMs = "" }) => `${user} ${type} ${ttlMs}`)}; dies at ${this.fuse})`;
}

class Tick implements Command {
  readonly ms: number;
  readonly fuse: number;
  constructor(ms: number, fuse: number) {
    this.ms = ms;
    this.fuse = fuse;
  }
  check = () => true;
  async run(model: Model, real: Real) {
    time.now = new Date(time.now.getTime() + this.ms);
    real.fuse = this.fuse;
    await closeAll(model, real);
    await compare(model, real);
  }
  toString = () => `tick(${this.ms} ms; dies at ${this.fuse})`;
}

class Close implements Command {
  readonly which: number;
  constructor(which: number) {
    this.which = which;
  }
  check = (model: Readonly<Model>) => model.open.length > 0;
  async run(model: Model, real: Real) {
    const batch = model.open[this.which % model.open.length];
    if (batch === undefined) return;
    await real.closeEarly(batch.key);
    model.closeEarly(batch, clock().getTime());
    await compare(model, real);
  }
  toString = () => `close(${this.which})`;
}

class Cancel implements Command {
  readonly which: number;
  constructor(which: number) {
    this.which = which;
  }
  check = (model: Readonly<Model>) => model.items.size > 0;
  async run(model: Model, real: Real) {
    const id = real.ids[this.which % real.ids.length] ?? "";
    await real.cancel(id);
    model.cancel(id);
    await compare(model, real);
  }
  toString = () => `cancel(${this.which})`;
}

class Prefer implements Command {
  readonly user: string;
  readonly wish: Wish;
  constructor(user: string, wish: Wish) {
    this.user = user;
    this.wish = wish;
  }
  check = () => true;
  async run(model: Model, real: Real) {
    await real.wish(this.user, this.wish);
    model.wish(this.user, this.wish, clock().getTime());
    await compare(model, real);
  }
  toString = () => `prefer(${this.user}, ${JSON.stringify(this.wish)})`;
}

class Cap implements Command {
  readonly user: string;
  readonly isFull: boolean;
  constructor(user: string, isFull: boolean) {
    this.user = user;
    this.isFull = isFull;
  }
  check = () => true;
  async run(model: Model, real: Real) {
    // What is due has been asked about already.
    await closeAll(model, real);
    if (this.isFull) real.capped.add(this.user);
    else real.capped.delete(this.user);
    model.cap(this.user, this.isFull);
  }
  toString = () => `cap(${this.user}, ${this.isFull})`;
}

/** What is due has closed before: whether a digest is past is no question of its type. */
class Change implements Command {
  readonly type: string;
  readonly rule: Rule;
  constructor(type: string, changed: Rule) {
    this.type = type;
    this.rule = changed;
  }
  check = () => true;
  async run(model: Model, real: Real) {
    await closeAll(model, real);
    await real.change(this.type, this.rule);
    model.change(this.type, this.rule, clock().getTime());
    await compare(model, real);
  }
  toString = () => `change(${this.type}, ${JSON.stringify(this.rule)})`;
}

class Again implements Command {
  check = (model: Readonly<Model>) => model.items.size > 0;
  async run(model: Model, real: Real) {
    await real.route(real.ids);
    await closeAll(model, real);
    await compare(model, real);
  }
  toString = () => "all messages once more";
}

async function closeAll(model: Model, real: Real): Promise<void> {
  await real.close();
  real.fuse = Number.POSITIVE_INFINITY;
  await real.settle();
  model.close(clock().getTime());
}

const sorted = (arrived: readonly (readonly string[])[]) => arrived.map((ids) => ids.toSorted().join(" ")).toSorted();

async function compare(model: Model, real: Real): Promise<void> {
  expect(sorted(await real.arrived())).toEqual(sorted(model.arrived));
  const rows = await sql<{ id: string; status: number }[]>`
    select id, status from notifications where tenant_id = ${real.tenantId} and batch_role is distinct from 4`;
  const delivered = new Set(model.arrived.flat());
  const expected = (id: string) => {
    if (model.cancelled.has(id)) return Status.CANCELLED;
    if (model.expired.has(id)) return Status.EXPIRED;
    return delivered.has(id) ? Status.DELIVERED : Status.BATCHED;
  };
  expect(rows.map(({ id, status }) => [id, status])).toEqual(rows.map(({ id }) => [id, expected(id)]));
  const open = await sql<{ user: string; type: string; at: Date; joined: number; live: number }[]>`
    select user_id as user, type, flush_at as at, joined, (
      select count(*)::int from notifications n where n.tenant_id = b.tenant_id and n.batch_id = b.id and n.status = 4
        and n.batch_role = 1) as live
    from batches b where tenant_id = ${real.tenantId} and state in (1, 2)`;
  const told = open.map(({ user, type, at, joined, live }) => `${user} ${type} ${at.getTime()} ${joined} ${live}`);
  const foretold = model.batches.map(
    ({ user, type, flushAt, joined, live }) => `${user} ${type} ${flushAt} ${joined} ${live.size}`,
  );
  expect(told.toSorted()).toEqual(foretold.toSorted());
}

test("whatever happens in whatever order, each notification arrives once, in the batch it belongs to", async () => {
  const user = fc.constantFrom(...USERS);
  const type = fc.constantFrom(...TYPES);
  const ttlMs = fc.constantFrom(undefined, undefined, undefined, 400_000, 700_000, 1_000_000, 2 * HOUR);
  // Usually nobody dies; else at one of the first commits.
  const fuse = fc.oneof(fc.constant(Number.POSITIVE_INFINITY), fc.nat({ max: 6 }));
  const items = fc.array(fc.record({ user, type, ttlMs }), { minLength: 1, maxLength: 7 });
  const ms = fc.constantFrom(0, 1000, 200_000, 200_000, 300_000, 600_000, HOUR, -5000, -600_000);
  const wish = fc.record({ enabled: often, maxSize: fc.integer({ min: 1, max: 4 }), digest: seldom });
  const rules = fc
    .record({ batchable: often, maxSize: fc.integer({ min: 2, max: 4 }), leading: fc.boolean(), sliding: fc.boolean() })
    .map((own) => rule(own));
  const sends = fc.tuple(items, fuse).map((args) => new Send(...args));
  const commands = [
    ...[sends, sends, fc.tuple(ms, fuse).map((args) => new Tick(...args))],
    fc.nat({ max: 30 }).map((which) => new Cancel(which)),
    fc.nat({ max: 30 }).map((which) => new Close(which)),
    fc.tuple(user, wish).map((args) => new Prefer(...args)),
    fc.tuple(type, rules).map((args) => new Change(...args)),
    fc.tuple(user, fc.boolean()).map((args) => new Cap(...args)),
    fc.constant(new Again()),
  ];
  await fc.assert(
    fc.asyncProperty(fc.commands(commands, { maxCommands: 25 }), async (run) => {
      time.now = new Date(Math.floor(Date.now() / HOUR) * HOUR + HOUR / 3);
      await fc.asyncModelRun(async () => {
        const real = new Real();
        await real.begin();
        return { model: new Model(), real };
      }, run);
    }),
    { numRuns: 60 },
  );
}, 600_000);

const often = fc.constantFrom(true, true, true, false);
const seldom = fc.constantFrom(false, false, false, true);
