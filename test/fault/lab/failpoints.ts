import type { Channel } from "#gen/posthorn/v1/notification_pb.ts";
import type { Between } from "#src/between.ts";
import type { Channels, OutsideChannel } from "#src/channels/channel.ts";
import type { HandleWork } from "#src/pipeline/consume.ts";
import type { Queue } from "#src/pipeline/queue.ts";
import type { Db, Store, Tx } from "#src/store/store.ts";
import type { Live } from "#src/stream/live.ts";

// Points around every commit, publish and ack, at which a process can be told to stop or die. None is in the product: they
// stand between it and what it works with.
//
//     accept ─ commit ─▶ enqueue ─▶ work ─ read ─ decide ─ commit ─▶ announce ─▶ ack
//                                    ├── lead ─ commit ─▶ decide
//                                    ├── join a batch and decide ─ commit ─▶ announce ─▶ ack
//                                    └── fanout ─ commit ─▶ enqueue
//     release, reconcile, occurrence, close ─ commit ─▶ enqueue
//     reconsider ─ commit ─▶ release
//     escalate ─ commit ─▶ claim ─ commit ─▶ hand over ─▶ note ─ commit
//                                     └─ give ─ commit ─▶ hand over     what is at most once
//     confirm, and every other transaction that writes ─ commit

/**
 * What a transaction does, told by the first of its statements that is like one of these; the first that fits. One that
 * writes and is like none is "other": no commit is without its points.
 */
const TRANSACTIONS = [
  ["fanout", /select from fanouts .*\s.*for update/],
  ["occurrence", /from schedules s where s\.tenant_id = .* s\.lane = .*\s.*\s.*for update skip locked/],
  ["close", /from batches\s+where tenant_id = .*flush_at <= /],
  ["join", /select key, revision from types/],
  ["lead", /insert into batches/],
  ["reconsider", /from rule_changes where .*for update skip locked/],
  ["confirm", /update notifications set confirmed_at/],
  ["escalate", /as zone\s+from notifications n\s.*\s.*for update of n skip locked/],
  ["claim", /update hand_overs set due_at/],
  ["give", /update hand_overs set given/],
  ["note", /(delete from|update) hand_overs h /],
  ["accept", /insert into (idempotency_keys|dedup_keys|notifications)/],
  ["decide", /insert into inbox_heads/],
  ["release", /n\.due_at <= .*\s.*for update skip locked/],
  ["reconcile", /queued_at is null or queued_at < .*\s.*for update skip locked/],
] as const;

const OTHER = "other";
const WRITES = /\b(insert into|delete from|update)\s+(?!of\b|skip\b|nowait\b)["\w]+/i;

export type Transaction = (typeof TRANSACTIONS)[number][0] | typeof OTHER;

/** Their names, without that of the others. */
export const NAMED: readonly Transaction[] = TRANSACTIONS.map(([name]) => name);

const around = <T extends Transaction>(name: T) =>
  [`${name}:before-write`, `${name}:before-commit`, `${name}:after-commit`] as const;

export const FAILPOINTS = [
  ...TRANSACTIONS.flatMap(([name]) => around(name)),
  ...around(OTHER),
  "enqueue:before",
  "enqueue:after",
  "work:before",
  "ack:before",
  "ack:after",
  "announce:before",
  "announce:after",
  "hand-over:before",
  "hand-over:after",
] as const;

export type Failpoint = (typeof FAILPOINTS)[number];

/** Those that are passed once a Send or a chunk; the others only by some. */
export const OFTEN = /^(accept|decide|enqueue|work|ack|announce):/;

/**
 * What a process does to itself at the n-th pass of a point, the first being 1: die, or stop and know nothing of it until it
 * is resumed. Of several points each counts from when the one before it was reached.
 */
export type FailAt = { by: "SIGKILL" | "SIGSTOP"; points: readonly { point: Failpoint; pass: number }[] };

/**
 * Stands between the platform and its parts and calls `reached` at every point, in the moment it is passed. `own` are
 * channels to use instead of the platform's.
 */
export function failpoints(reached: (point: Failpoint) => void, own?: Channels): Between {
  return {
    store: (store) => watchedStore(store, reached),
    queue: (queue) => watchedQueue(queue, reached),
    live: (live) => watchedLive(live, reached),
    work: (handle) => watchedWork(handle, reached),
    channels: (channels) => watchedChannels(own ?? channels, reached),
  };
}

function watchedStore(store: Store, reached: (point: Failpoint) => void): Store {
  const watching =
    <A>(overhear: (arg: A, tell: (statement: string) => void) => A) =>
    async <T>(
      run: (work: (arg: A, last?: () => void) => Promise<T>) => Promise<T>,
      work: (arg: A, last: () => void) => Promise<T>,
    ): Promise<T> => {
      let name: Transaction | undefined;
      const hear = (statement: string) => {
        if (name !== undefined) return;
        name = nameOf(statement);
        if (name !== undefined) reached(`${name}:before-write`);
      };
      const result = await run(async (arg, last) => {
        let isBefore = true;
        const beforeCommit = () => {
          if (isBefore && name !== undefined) reached(`${name}:before-commit`);
          isBefore = false;
        };
        const done = await work(overhear(arg, hear), () => {
          // When the last statements have been sent, and COMMIT has not.
          queueMicrotask(() => process.nextTick(beforeCommit));
          last?.();
        });
        beforeCommit();
        return done;
      });
      if (name !== undefined) reached(`${name}:after-commit`);
      return result;
    };
  const raw = watching(overheard);
  const drizzled = watching(overheardDb);
  return {
    ...store,
    tenant: (tenantId, work) => raw((inner) => store.tenant(tenantId, inner), work),
    tenantAtOnce: (tenantId, work) => raw((inner) => store.tenantAtOnce(tenantId, inner), work),
    system: (work) => raw((inner) => store.system(inner), work),
    tenantDb: (tenantId, work) => drizzled((inner) => store.tenantDb(tenantId, inner), work),
    systemDb: (work) => drizzled((inner) => store.systemDb(inner), work),
    [Symbol.asyncDispose]: () => store[Symbol.asyncDispose](),
  };
}

/** What a transaction with this statement is; undefined: by this one it is nothing yet. */
export function nameOf(commented: string): Transaction | undefined {
  const statement = commented.replace(/\/\*.*?\*\/ /g, "");
  return TRANSACTIONS.find(([, like]) => like.test(statement))?.[0] ?? (WRITES.test(statement) ? OTHER : undefined);
}

/** The same of a transaction of Drizzle's, whose session tells each statement to its logger. */
function overheardDb(db: Db, tell: (statement: string) => void): Db {
  const { session } = db as unknown as { session: { logger: { logQuery(query: string): void } } };
  session.logger = { logQuery: tell };
  return db;
}

/** The transaction, with the text of every statement told before it is sent. */
function overheard(tx: Tx, tell: (statement: string) => void): Tx {
  return new Proxy(tx, {
    apply(target, self, args: [TemplateStringsArray, ...unknown[]]) {
      if (Array.isArray(args[0]) && "raw" in args[0]) tell(args[0].join("?"));
      return Reflect.apply(target, self, args);
    },
  });
}

function watchedQueue(queue: Queue, reached: (point: Failpoint) => void): Queue {
  const around = async (publish: () => Promise<void>) => {
    reached("enqueue:before");
    await publish();
    reached("enqueue:after");
  };
  return {
    ...queue,
    enqueue: (...args) => around(() => queue.enqueue(...args)),
    enqueueFanout: (...args) => around(() => queue.enqueueFanout(...args)),
  };
}

function watchedLive(live: Live, reached: (point: Failpoint) => void): Live {
  return {
    ...live,
    arrived(...args) {
      reached("announce:before");
      live.arrived(...args);
      reached("announce:after");
    },
  };
}

function watchedChannels(channels: Channels, reached: (point: Failpoint) => void): Channels {
  return new Map(
    [...channels].map(([name, channel]): [Channel, OutsideChannel] => [
      name,
      {
        async deliver(...args) {
          reached("hand-over:before");
          const outcome = await channel.deliver(...args);
          reached("hand-over:after");
          return outcome;
        },
      },
    ]),
  );
}

function watchedWork(handle: HandleWork, reached: (point: Failpoint) => void): HandleWork {
  return async (work, delivery) => {
    reached("work:before");
    await handle(work, delivery);
    reached("ack:before");
    // The ack is written as soon as this returns.
    setImmediate(() => reached("ack:after"));
  };
}
