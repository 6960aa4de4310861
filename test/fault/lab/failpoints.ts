import type { Channel } from "#gen/posthorn/v1/notification_pb.ts";
import type { Channels, OutsideChannel } from "#src/channels/channel.ts";
import type { Between } from "#src/main.ts";
import type { HandleWork } from "#src/pipeline/consume.ts";
import type { Queue } from "#src/pipeline/queue.ts";
import type { Store, Tx } from "#src/store/store.ts";
import type { Live } from "#src/stream/live.ts";

// Points around every commit, publish and ack, at which a process can be told to stop or die. None is in the product: they
// stand between it and what it works with.
//
//     accept ─ commit ─▶ enqueue ─▶ work ─ read ─ decide ─ commit ─▶ announce ─▶ ack
//                                    └── fanout ─ commit ─▶ enqueue
//     release, reconcile ─ commit ─▶ enqueue
//     escalate ─ commit ─▶ claim ─ commit ─▶ hand over ─▶ note ─ commit

/** What a transaction does, told by what it writes. */
const TRANSACTIONS = [
  ["fanout", /select from fanouts .*\s.*for update/],
  ["accept", /insert into notifications/],
  ["decide", /insert into inbox_heads/],
  ["release", /due_at <= /],
  ["reconcile", /update notifications n set queued_at/],
] as const;

/** Those of what leads to outside channels, which only what escalates or is sent to them comes to. */
const OUTSIDE_TRANSACTIONS = [
  ["escalate", /update escalations e set/],
  ["claim", /update hand_overs set due_at/],
  ["note", /delete from hand_overs/],
] as const;

/** The first that fits. */
const ALL_TRANSACTIONS = [...OUTSIDE_TRANSACTIONS, ...TRANSACTIONS];

type Transaction = (typeof ALL_TRANSACTIONS)[number][0];

export const FAILPOINTS = [
  ...TRANSACTIONS.flatMap(
    ([name]) => [`${name}:before-write`, `${name}:before-commit`, `${name}:after-commit`] as const,
  ),
  "enqueue:before",
  "enqueue:after",
  "work:before",
  "ack:before",
  "ack:after",
  "announce:before",
  "announce:after",
] as const;

export const OUTSIDE_FAILPOINTS = [
  ...OUTSIDE_TRANSACTIONS.flatMap(
    ([name]) => [`${name}:before-write`, `${name}:before-commit`, `${name}:after-commit`] as const,
  ),
  "hand-over:before",
  "hand-over:after",
] as const;

export type Failpoint = (typeof FAILPOINTS)[number] | (typeof OUTSIDE_FAILPOINTS)[number];

/**
 * What a process does to itself at the n-th pass of a point, the first being 1: die, or stop and know nothing of it until it
 * is resumed. Of several points each counts from when the one before it was reached.
 */
export type FailAt = { by: "SIGKILL" | "SIGSTOP"; points: readonly { point: Failpoint; pass: number }[] };

/** Stands between the platform and its parts and calls `reached` at every point, in the moment it is passed. */
export function failpoints(reached: (point: Failpoint) => void): Between {
  return {
    store: (store) => watchedStore(store, reached),
    queue: (queue) => watchedQueue(queue, reached),
    live: (live) => watchedLive(live, reached),
    work: (handle) => watchedWork(handle, reached),
    channels: (channels) => watchedChannels(channels, reached),
  };
}

function watchedStore(store: Store, reached: (point: Failpoint) => void): Store {
  const watched = async <T>(run: (work: (tx: Tx) => Promise<T>) => Promise<T>, work: (tx: Tx) => Promise<T>) => {
    let name: Transaction | undefined;
    const hear = (statement: string) => {
      if (name !== undefined) return;
      name = ALL_TRANSACTIONS.find(([, writes]) => writes.test(statement))?.[0];
      if (name !== undefined) reached(`${name}:before-write`);
    };
    const result = await run(async (tx) => {
      const done = await work(overheard(tx, hear));
      if (name !== undefined) reached(`${name}:before-commit`);
      return done;
    });
    if (name !== undefined) reached(`${name}:after-commit`);
    return result;
  };
  return {
    ...store,
    tenant: (tenantId, work) => watched((inner) => store.tenant(tenantId, inner), work),
    system: (work) => watched((inner) => store.system(inner), work),
    [Symbol.asyncDispose]: () => store[Symbol.asyncDispose](),
  };
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
