import { Priority } from "#gen/posthorn/v1/notification_pb.ts";
import { type SendResponse, SendService } from "#gen/posthorn/v1/send_service_pb.ts";
import { type Connection, retryable } from "./connection.ts";
import type { Random } from "./random.ts";

type Request = {
  to: { userIds: string[]; topics?: string[] };
  content: { title: string };
  priority: Priority;
  tags: string[];
  idempotencyKey: string;
  dedupKey?: string;
  dedupWindow?: { seconds: bigint };
  schedule?: { case: "scheduleTime"; value: { seconds: bigint } };
};

export type Acknowledged = { key: string; userId: string };

/** What callers were told. The database is compared with it afterwards. */
export type Account = {
  /** By notification id: what was accepted for whom. */
  readonly acknowledged: Map<string, Acknowledged>;
  /** By key: the fan-out that sends it to the members of the topic. */
  readonly fanouts: Map<string, string>;
  /** Ids named as standing for a duplicate. */
  readonly named: Set<string>;
  /** Failed calls by code, all of them tried again. */
  readonly failures: Map<number, number>;
  /** Answers that a caller must never get. */
  readonly broken: string[];
  /** Requests whose caller never got an answer, and may or may not be stored. */
  unanswered: number;
};

const PRIORITIES = [Priority.LOW, Priority.NORMAL, Priority.NORMAL, Priority.HIGH, Priority.CRITICAL];
/** How long a caller goes on trying. Longer than any fault lasts. */
const PATIENCE_MS = 180_000;

/** Longer than any clock is set forward between two Sends of one key. */
const A_WEEK = { seconds: 604_800n };

export type Sending = {
  /** A connection to each node: callers begin at one and go to the next when it fails. */
  connections: readonly Connection[];
  random: Random;
  users: number;
  /** Begins the name of every key of this sending. */
  name: string;
  deadlineMs: number;
  now: () => Date;
};

export const TOPIC = "crew";

/**
 * Callers as they should be: every Send with an idempotency key, repeated elsewhere when it failed with a code that allows
 * it. Among the plain Sends there are some that are repeated though they succeeded, some to the same user with one dedup
 * key, some scheduled for the next second, some in batches, some to a topic.
 */
export function sender({ connections, random, users, name, deadlineMs, now }: Sending) {
  const account: Account = {
    acknowledged: new Map(),
    fanouts: new Map(),
    named: new Set(),
    failures: new Map(),
    broken: [],
    unanswered: 0,
  };
  let keys = 0;

  function request(): Request {
    const key = `${name}-${keys++}`;
    const many = random.chance(0.1) ? random.int(2, 4) : 1;
    const userIds = [...new Set(Array.from({ length: many }, () => userName(random.int(0, users - 1))))];
    return {
      to: { userIds },
      content: { title: key },
      priority: random.pick(PRIORITIES),
      tags: [key],
      idempotencyKey: key,
      ...(random.chance(0.05)
        ? { schedule: { case: "scheduleTime", value: { seconds: BigInt(Math.ceil(now().getTime() / 1000) + 1) } } }
        : {}),
    };
  }

  /** Tries until it is answered; undefined when patience is over. */
  async function untilAnswered<T>(call: (connection: Connection) => Promise<T>): Promise<T | undefined> {
    const deadline = performance.now() + PATIENCE_MS;
    let at = random.int(0, connections.length - 1);
    for (let pause = 20; performance.now() < deadline; pause = Math.min(pause * 2, 500)) {
      try {
        return await call(connections[at++ % connections.length] as Connection);
      } catch (error) {
        const { code, message } = error as { code: number; message: string };
        if (!retryable(error)) {
          account.broken.push(`a Send was refused with ${message}`);
          return undefined;
        }
        account.failures.set(code, (account.failures.get(code) ?? 0) + 1);
        await new Promise((done) => setTimeout(done, pause * (0.5 + random.fraction())));
      }
    }
    return undefined;
  }

  async function one(body: Request): Promise<void> {
    const answer = await untilAnswered((connection) => connection.call(SendService.method.send, body, deadlineMs));
    if (answer === undefined) account.unanswered++;
    else record(body, answer);
  }

  async function batch(items: readonly Request[]): Promise<void> {
    const answer = await untilAnswered((connection) =>
      connection.call(SendService.method.sendBatch, { items: [...items] }, deadlineMs),
    );
    const again: Request[] = [];
    for (const [index, item] of items.entries()) {
      const result = answer?.results[index]?.result;
      if (result?.case === "error" && !retryable(result.value))
        account.broken.push(`an item was refused: ${result.value.message}`);
      if (result?.case === "response") record(item, result.value);
      else again.push(item);
    }
    await Promise.all(again.map(one));
  }

  function record({ idempotencyKey: key, dedupKey, to }: Request, { results, fanoutId }: SendResponse): void {
    if (to.topics !== undefined) {
      const known = account.fanouts.get(key);
      if (known !== undefined && known !== fanoutId) account.broken.push(`${key} began a second fan-out`);
      account.fanouts.set(key, fanoutId);
    }
    for (const { notificationId: id, userId, deduplicated } of results) {
      if (deduplicated) {
        if (!dedupKey) account.broken.push(`${key} was deduplicated without a dedup key`);
        account.named.add(id);
        continue;
      }
      const known = account.acknowledged.get(id);
      if (known !== undefined && (known.key !== key || known.userId !== userId))
        account.broken.push(`${id} was given to ${known.key} and to ${key}`);
      account.acknowledged.set(id, { key, userId });
    }
  }

  /** Sends a few, in one of the ways callers have; returns how many notifications that asked for. */
  async function some(): Promise<number> {
    const way = random.fraction();
    const first = request();
    const size = first.to.userIds.length;
    if (way < 0.1) {
      await Promise.all([one(first), one(first)]);
      return size;
    }
    if (way < 0.15) {
      const key = `dedup-${first.idempotencyKey}`;
      const second = { ...request(), to: { userIds: first.to.userIds } };
      await Promise.all([first, second].map((each) => one({ ...each, dedupKey: key, dedupWindow: A_WEEK })));
      return size;
    }
    if (way < 0.16) {
      await one({ ...first, to: { userIds: [], topics: [TOPIC] } });
      return 1;
    }
    if (way < 0.25) {
      const items = [first, ...Array.from({ length: random.int(5, 30) }, request)];
      await batch(items);
      return items.reduce((sum, item) => sum + item.to.userIds.length, 0);
    }
    await one(first);
    return size;
  }

  return { account, some };
}

export function userName(n: number): string {
  return `user-${n}`;
}
