// Batches against a model: senders, closers, cancels, changed preferences, clocks that step, and processes that die before
// or after any of their commits, in any order. What arrives is what a few lines of arrays and maps say.
import { create, fromBinary } from "@bufbuild/protobuf";
import fc from "fast-check";
import { Registry } from "prom-client";
import { expect, test } from "vitest";
import { ContentSchema, Status } from "#gen/posthorn/v1/notification_pb.ts";
import { PreferencesSchema } from "#gen/posthorn/v1/preferences_service_pb.ts";
import { NotificationTypeSchema } from "#gen/posthorn/v1/type_service_pb.ts";
import { dissolveBatches } from "#src/batches/dissolve.ts";
import { cancelByIds } from "#src/notifications/queries.ts";
import { type CloseDeps, closeDue } from "#src/pipeline/close/close.ts";
import { endingBy } from "#src/pipeline/route/ended-by.ts";
import { decide } from "#src/pipeline/route/gates/decide.ts";
import { holdingBy } from "#src/pipeline/route/held-by.ts";
import { type RouteDeps, route } from "#src/pipeline/route/route.ts";
import { compile } from "#src/preferences/compile.ts";
import { zoneClock } from "#src/preferences/zone-clock.ts";
import { releaseDue } from "#src/schedule/release.ts";
import type { Store } from "#src/store/store.ts";
import { createLogger } from "#src/telemetry/logger.ts";
import { createMetrics } from "#src/telemetry/metrics.ts";
import { definitionOf } from "#src/types/type.ts";
import { onPostgres } from "../support/on-postgres.ts";
import { wait } from "../support/waiting.ts";

const { store, sql, time, clock, newId, tenant } = await onPostgres();
const log = createLogger({ serviceName: "test", logLevel: "silent", logFormat: "json" });
const metrics = createMetrics(new Registry());

const WINDOW = 600_000;
const USERS = ["ann", "bob"];
type Wish = { enabled: boolean; maxSize: number };

/** What should be: the reference. Times in ms; a batch is what joined it, of which some were cancelled. */
type Open = { flushAt: number; joined: number; maxSize: number; live: Set<string> };
class Model {
  readonly wishes = new Map<string, Wish>(USERS.map((user) => [user, { enabled: true, maxSize: 3 }]));
  readonly open = new Map<string, Open>();
  readonly full: Open[] = [];
  readonly userOf = new Map<string, string>();
  readonly since = new Map<string, number>();
  /** What has arrived, each with what it tells of. */
  readonly arrived: string[][] = [];
  readonly cancelled = new Set<string>();

  decide(ids: readonly string[], now: number): void {
    for (const user of USERS) {
      const own = ids.filter((id) => this.userOf.get(id) === user);
      const wish = this.wishes.get(user);
      if (wish === undefined || own.length === 0) continue;
      if (!wish.enabled || wish.maxSize < 2) {
        for (const id of own) this.arrived.push([id]);
        continue;
      }
      const flushAt = Math.min(...own.map((id) => Math.max(now, Math.min(this.since.get(id) ?? now, now) + WINDOW)));
      for (let rest = own; rest.length > 0; ) {
        const batch = this.open.get(user) ?? { flushAt, joined: 0, maxSize: wish.maxSize, live: new Set() };
        batch.flushAt = Math.min(batch.flushAt, flushAt);
        const joining = rest.slice(0, batch.maxSize - batch.joined);
        rest = rest.slice(joining.length);
        for (const id of joining) {
          batch.live.add(id);
          if (!this.since.has(id)) this.since.set(id, now);
        }
        batch.joined += joining.length;
        if (batch.joined < batch.maxSize) this.open.set(user, batch);
        else {
          this.open.delete(user);
          this.full.push({ ...batch, flushAt: Math.min(batch.flushAt, now) });
        }
      }
    }
  }

  close(now: number): void {
    const due = this.full.filter((batch) => batch.flushAt <= now);
    this.full.splice(0, this.full.length, ...this.full.filter((batch) => !due.includes(batch)));
    for (const [user, batch] of this.open) {
      if (batch.flushAt > now) continue;
      due.push(batch);
      this.open.delete(user);
    }
    for (const { live } of due) if (live.size > 0) this.arrived.push([...live]);
  }

  cancel(id: string): void {
    for (const batch of [...this.open.values(), ...this.full]) if (batch.live.delete(id)) this.cancelled.add(id);
  }

  wish(user: string, wish: Wish, now: number): void {
    const waiting = [...this.full, ...[...this.open.values()]].flatMap(({ live }) => [...live]);
    const own = waiting.filter((id) => this.userOf.get(id) === user);
    this.open.delete(user);
    const others = this.full.filter(({ live }) => [...live].some((id) => this.userOf.get(id) !== user));
    this.full.splice(0, this.full.length, ...others);
    this.wishes.set(user, wish);
    this.decide(own.sort(), now);
  }
}

/** The real thing: two workers and two closers on one database, of which each may die at its commits. */
class Real {
  readonly tenantId = tenant().tenantId;
  readonly ids: string[] = [];
  readonly wishes = new Map<string, Wish>(USERS.map((user) => [user, { enabled: true, maxSize: 3 }]));
  /** Commits until the process dies; even: before the commit, odd: after it. */
  fuse = Number.POSITIVE_INFINITY;
  readonly #type = {
    ...definitionOf(
      create(NotificationTypeSchema, {
        key: "heap",
        batching: { batchable: true, maxSize: 20, window: { seconds: 600n } },
      }),
    ),
    tenantId: this.tenantId,
    ...{ payloadId: null, payloadVersion: null, payloadMessage: null },
    // It is in no table.
    revision: 0,
    createdAt: new Date(0),
    updatedAt: new Date(0),
  };
  readonly #mortal: Store = {
    ...store,
    tenant: async (tenantId, work) => {
      const result = await store.tenant(tenantId, async (tx) => {
        const result = await work(tx);
        if (this.fuse-- === 0) throw new Died();
        return result;
      });
      if (this.fuse-- === 0) throw new Died();
      return result;
    },
    [Symbol.asyncDispose]: async () => undefined,
  };
  readonly #loadPreferences = async (_: string, userIds: readonly string[]) =>
    new Map(
      userIds.map((userId) => {
        const batching = this.wishes.get(userId) ?? { enabled: false, maxSize: 5 };
        const user = create(PreferencesSchema, { batching });
        return [
          userId,
          compile({ tenant: undefined, profile: { language: "", timeZone: "" }, user }, new Set(), zoneClock),
        ];
      }),
    );
  readonly #route: RouteDeps = {
    ...{ store: this.#mortal, clock, metrics, log, newId, decide },
    findType: () => this.#type,
    reloadType: async () => this.#type,
    loadPreferences: this.#loadPreferences,
    reloadPreferences: this.#loadPreferences,
    reserve: async (_, wanted) => wanted.map(() => ({ allowed: true })),
    arrived: () => undefined,
    statusChanged: () => undefined,
    batchJoined: () => undefined,
  };
  readonly #close: CloseDeps = {
    ...{ store: this.#mortal, newId, endedBy: endingBy(decide), heldBy: holdingBy(decide), log, metrics, slot: 0 },
    // What is queued may be lost: `settle` looks for it as the reconciler does.
    queue: { enqueue: async () => undefined, enqueueFanout: async () => undefined },
    findType: () => this.#type,
    loadPreferences: this.#loadPreferences,
    reloadPreferences: this.#loadPreferences,
    turnsOf: async () => new Map(),
    closed: () => undefined,
    waits: () => undefined,
  };

  async send(users: readonly string[]): Promise<string[]> {
    const ids = await wait(
      { store, newId, clock },
      this.tenantId,
      users.map((userId) => ({ userId, type: "heap" })),
    );
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

  async wish(userId: string, wish: Wish): Promise<void> {
    await store.tenantDb(this.tenantId, async (db) => {
      await dissolveBatches(db, this.tenantId, [userId], clock());
      this.wishes.set(userId, wish);
    });
    await releaseDue({ store, queue: this.#close.queue }, clock(), 1000);
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
  readonly users: readonly string[];
  readonly fuse: number;
  constructor(users: readonly string[], fuse: number) {
    this.users = users;
    this.fuse = fuse;
  }
  check = () => true;
  async run(model: Model, real: Real) {
    const ids = await real.send(this.users);
    ids.forEach((id, index) => {
      model.userOf.set(id, this.users[index] ?? "");
    });
    real.fuse = this.fuse;
    await real.route(ids);
    real.fuse = Number.POSITIVE_INFINITY;
    model.decide(ids, clock().getTime());
    await compare(model, real);
  }
  toString = () => `send(${this.users.join(",")}; dies at ${this.fuse})`;
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
    await real.close();
    real.fuse = Number.POSITIVE_INFINITY;
    await real.settle();
    model.close(clock().getTime());
    await compare(model, real);
  }
  toString = () => `tick(${this.ms} ms; dies at ${this.fuse})`;
}

class Cancel implements Command {
  readonly which: number;
  constructor(which: number) {
    this.which = which;
  }
  check = (model: Readonly<Model>) => model.userOf.size > 0;
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
    await real.settle();
    model.wish(this.user, this.wish, clock().getTime());
    await compare(model, real);
  }
  toString = () => `prefer(${this.user}, ${JSON.stringify(this.wish)})`;
}

class Again implements Command {
  check = (model: Readonly<Model>) => model.userOf.size > 0;
  async run(model: Model, real: Real) {
    await real.route(real.ids);
    await real.close();
    await real.settle();
    model.close(clock().getTime());
    await compare(model, real);
  }
  toString = () => "all messages once more";
}

const sorted = (arrived: readonly (readonly string[])[]) => arrived.map((ids) => ids.toSorted().join(" ")).toSorted();

async function compare(model: Model, real: Real): Promise<void> {
  expect(sorted(await real.arrived())).toEqual(sorted(model.arrived));
  const rows = await sql<{ id: string; status: number }[]>`
    select id, status from notifications where tenant_id = ${real.tenantId} and batch_role is distinct from 4`;
  const delivered = new Set(model.arrived.flat());
  for (const { id, status } of rows) {
    const expected = model.cancelled.has(id) ? Status.CANCELLED : delivered.has(id) ? Status.DELIVERED : Status.BATCHED;
    expect([id, status]).toEqual([id, expected]);
  }
}

test("whatever happens in whatever order, each notification arrives once, in the batch it belongs to", async () => {
  const user = fc.constantFrom(...USERS);
  // Usually nobody dies; else at one of the first commits.
  const fuse = fc.oneof(fc.constant(Number.POSITIVE_INFINITY), fc.nat({ max: 6 }));
  const commands = [
    fc.tuple(fc.array(user, { minLength: 1, maxLength: 7 }), fuse).map((args) => new Send(...args)),
    fc.tuple(fc.constantFrom(0, 1000, WINDOW / 2, WINDOW, -5000, -WINDOW), fuse).map((args) => new Tick(...args)),
    fc.nat({ max: 30 }).map((which) => new Cancel(which)),
    fc
      .tuple(user, fc.record({ enabled: fc.boolean(), maxSize: fc.integer({ min: 1, max: 4 }) }))
      .map((args) => new Prefer(...args)),
    fc.constant(new Again()),
  ];
  await fc.assert(
    fc.asyncProperty(fc.commands(commands, { maxCommands: 25 }), async (run) => {
      time.now = new Date();
      await fc.asyncModelRun(() => ({ model: new Model(), real: new Real() }), run);
    }),
    { numRuns: 40 },
  );
}, 300_000);
