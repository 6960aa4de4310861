import { setTimeout as delay } from "node:timers/promises";
import { status } from "@grpc/grpc-js";
import { Channel, Priority } from "#gen/posthorn/v1/notification_pb.ts";
import { PreferencesService } from "#gen/posthorn/v1/preferences_service_pb.ts";
import { ScheduleService } from "#gen/posthorn/v1/schedule_service_pb.ts";
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
  type?: string;
  channels?: Channel[];
  escalation?: { steps: Step[]; confirmationRequired: boolean };
};

type Step = { channel: Channel; after: { seconds: bigint } };

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
  /** By key: the channels besides the inbox that it was sent to, where it is in no batch. */
  readonly outside: Map<string, readonly Channel[]>;
  /** By key: how many steps it escalates by. */
  readonly escalating: Map<string, number>;
  /** By notification id: when its confirmation was answered. Settled before anything is verified. */
  readonly confirming: Map<string, Promise<void>>;
  /** Keys of schedules, with the time of their first occurrence. */
  readonly schedules: Map<string, Date>;
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
  /** Whether the nodes have outside channels. */
  outside: boolean;
  /** Whether there are schedules: their occurrences are by this machine's time. */
  recurring: boolean;
};

export const TOPIC = "crew";
/** Types whose notifications come together: within a second, or four at a time. */
export const TOGETHER = { trailing: "together", leading: "one_at_once" } as const;

/** A type of which no channel is given twice what it may have taken. */
export const ONCE = "once";
/** Of what goes to outside channels, how much is of that type. */
const ONCE_SHARE = 0.3;

/** Users that batches are for, so few that there is more than one to come together. */
const GATHERING = 4;
/** The least that the contract allows; the lab shortens it. */
const SOON = { seconds: 10n };
const CHANNELS = [
  [Channel.EMAIL],
  [Channel.IN_APP, Channel.EMAIL],
  [Channel.IN_APP, Channel.SMS, Channel.EMAIL],
  [Channel.PUSH, Channel.EMAIL],
  [Channel.PUSH],
];
/** PUSH takes nothing: then the next has its turn at once. */
const STEPS = [[Channel.EMAIL, Channel.SMS], [Channel.PUSH, Channel.EMAIL], [Channel.EMAIL]];
/** From the answer to a Send to its confirmation, at most: some come before the first step, some after it. */
const CONFIRMED_WITHIN_MS = 4000;

/**
 * Callers as they should be: every Send with an idempotency key, repeated elsewhere when it failed with a code that allows
 * it. Among the plain Sends there are some that are repeated though they succeeded, some to the same user with one dedup
 * key, some scheduled for the next second, some in batches, some to a topic; some whose type lets them come together, some
 * to outside channels and of these some at most once, some that escalate and of these some that are confirmed. There are
 * schedules with an occurrence in a few seconds, and changes of rules that dissolve batches and change nothing else.
 */
export function sender({ connections, random, users, name, deadlineMs, now, outside, recurring }: Sending) {
  const account: Account = {
    acknowledged: new Map(),
    fanouts: new Map(),
    named: new Set(),
    outside: new Map(),
    escalating: new Map(),
    confirming: new Map(),
    schedules: new Map(),
    failures: new Map(),
    broken: [],
    unanswered: 0,
  };
  let keys = 0;

  function request(): Request {
    const request = plain();
    return { ...request, ...special(request.idempotencyKey) };
  }

  function plain(): Request {
    const key = `${name}-${keys++}`;
    const many = random.chance(0.1) ? random.int(2, 4) : 1;
    const userIds = [...new Set(Array.from({ length: many }, () => userName(random.int(0, users - 1))))];
    return {
      to: { userIds },
      content: { title: key },
      priority: random.pick(PRIORITIES),
      tags: [key],
      idempotencyKey: key,
    };
  }

  /** What is not plain about some. */
  function special(key: string): Partial<Request> {
    const which = random.fraction();
    if (which < 0.05)
      return { schedule: { case: "scheduleTime", value: { seconds: BigInt(Math.ceil(now().getTime() / 1000) + 1) } } };
    if (which < 0.12)
      return {
        type: random.pick(Object.values(TOGETHER)),
        to: { userIds: [userName(random.int(0, Math.min(users, GATHERING) - 1))] },
        priority: Priority.NORMAL,
        ...(outside && random.chance(0.3) ? { channels: [Channel.EMAIL] } : {}),
      };
    if (!outside) return {};
    if (which < 0.17) {
      const channels = random.pick(CHANNELS);
      account.outside.set(
        key,
        channels.filter((channel) => channel !== Channel.IN_APP),
      );
      return { channels, ...maybeOnce() };
    }
    if (which < 0.21) {
      const steps = random.pick(STEPS).map((channel) => ({ channel, after: SOON }));
      account.escalating.set(key, steps.length);
      return { escalation: { steps, confirmationRequired: random.chance(0.7) }, ...maybeOnce() };
    }
    return {};
  }

  function maybeOnce(): Pick<Request, "type"> {
    return random.chance(ONCE_SHARE) ? { type: ONCE } : {};
  }

  /** Tries until it is answered, also while the answer is `expected`; undefined when patience is over. */
  async function untilAnswered<T>(
    call: (connection: Connection) => Promise<T>,
    expected?: status,
  ): Promise<T | undefined> {
    const deadline = performance.now() + PATIENCE_MS;
    let at = random.int(0, connections.length - 1);
    for (let pause = 20; performance.now() < deadline; pause = Math.min(pause * 2, 500)) {
      try {
        return await call(connections[at++ % connections.length] as Connection);
      } catch (error) {
        const { code, message } = error as { code: number; message: string };
        if (!retryable(error) && code !== expected) {
          account.broken.push(`a call was refused with ${message}`);
          return undefined;
        }
        if (code !== expected) account.failures.set(code, (account.failures.get(code) ?? 0) + 1);
        await delay(pause * (0.5 + random.fraction()));
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
      if (account.escalating.has(key) && !account.confirming.has(id) && random.chance(0.5))
        account.confirming.set(id, confirm(id, random.int(0, CONFIRMED_WITHIN_MS)));
    }
  }

  /** As soon as it has come to its recipient; which takes an outage longer than this one waits at first. */
  async function confirm(id: string, afterMs: number): Promise<void> {
    await delay(afterMs);
    const request = { id, reason: "in the lab" };
    await untilAnswered(
      (connection) => connection.call(SendService.method.confirmNotification, request, deadlineMs),
      status.FAILED_PRECONDITION,
    );
  }

  /** A schedule with one occurrence in a few seconds, and further ones when all of this is long over. */
  async function schedule({ idempotencyKey, to, content, tags }: Request): Promise<void> {
    const key = idempotencyKey;
    const first = new Date(Math.ceil(now().getTime() / 1000) * 1000 + random.int(2, 4) * 1000);
    account.schedules.set(key, first);
    const localStartTime = first.toISOString().slice(0, 19);
    const every = { recurrence: "FREQ=HOURLY", localStartTime, timeZone: "UTC" };
    await untilAnswered((connection) =>
      connection
        .call(
          ScheduleService.method.createSchedule,
          { schedule: { key, request: { to, content, tags }, ...every } },
          deadlineMs,
        )
        .catch((error) => {
          // It was created by a call that was not answered.
          if (error.code !== status.ALREADY_EXISTS) throw error;
        }),
    );
  }

  /** Dissolves the open batches of a user, or of all: their members are decided anew. */
  async function changeRules(): Promise<void> {
    const preferences = { batching: { maxSize: random.int(3, 10) } };
    const userId = userName(random.int(0, Math.min(users, GATHERING) - 1));
    const ofAll = random.chance(0.2);
    const reason = "in the lab";
    await untilAnswered(async (connection) => {
      if (ofAll)
        await connection.call(PreferencesService.method.updateDefaultPreferences, { preferences, reason }, deadlineMs);
      else
        await connection.call(PreferencesService.method.updatePreferences, { userId, preferences, reason }, deadlineMs);
    });
  }

  /** Sends a few, in one of the ways callers have; returns how many notifications that asked for. */
  async function some(): Promise<number> {
    const way = random.fraction();
    if (way > 0.985) await changeRules();
    if (way > 0.97 && recurring) {
      await schedule(plain());
      return 1;
    }
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
