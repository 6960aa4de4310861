import { setTimeout as delay } from "node:timers/promises";
import { TopicService } from "#gen/posthorn/v1/topic_service_pb.ts";
import { BatchRule_Mode, DeliveryMode, TypeService } from "#gen/posthorn/v1/type_service_pb.ts";
import { until } from "../../support/until.ts";
import { yetToCome } from "./aftermath.ts";
import { type Connection, connectTo } from "./connection.ts";
import type { Address, Facts, Lab, Site } from "./lab.ts";
import { seededRandom } from "./random.ts";
import { openReaders, type Readers } from "./readers.ts";
import { ONCE, sender, TOGETHER, TOPIC, userName } from "./sender.ts";
import { brokenPromises } from "./verify.ts";

export type LedgerOptions = {
  seed: number;
  users: number;
  /** Of the users, how many have a stream open; default: all. */
  streams?: number;
  /** Calls under way at the same time; default 16. */
  callers?: number;
  /** Call at this rate instead, however long answers take. */
  perSecond?: number;
  /** How long a caller waits for one answer before it asks elsewhere; default: ten seconds. */
  deadlineMs?: number;
  /** The time as the nodes take it; default: this machine's. With another there are no schedules. */
  now?: () => Date;
};

/** Everything that was sent and everything that came of it. */
export type Ledger = {
  readonly readers: Readers;
  /**
   * Sends until this many have been asked for and `until` has settled, then waits for every answer. A fault runs
   * meanwhile, so `until` is its end.
   */
  send(atLeast: number, until?: Promise<unknown>): Promise<void>;
  /** Notifications asked for until now. */
  readonly sent: number;
  /** Calls answered until now; each is for one notification or some. */
  readonly calls: number;
  /** Calls that failed and were tried again, by code. */
  readonly failures: ReadonlyMap<number, number>;
  /**
   * Waits until nothing waits for a decision any more and every stream has given what its inbox holds, then for what comes
   * after decisions by itself, and compares all with the database. Returns how long the first wait was.
   *
   * @throws with every broken promise, when it does not become so in time or something is not as promised.
   */
  verify(withinMs?: number): Promise<Facts & { recoveryMs: number }>;
};

export async function openLedger(lab: Lab, site: Site<Address>, options: LedgerOptions): Promise<Ledger> {
  const { seed, users, streams = users, callers = 16, perSecond, deadlineMs = 10_000, now } = options;
  const random = seededRandom(seed);
  const connections: Connection[] = site.nodes.map(({ address }) => lab.use(connectTo(address, site.apiKey)));
  const { account, some } = sender({
    ...{ connections, random, users, name: `n${seed}`, deadlineMs },
    now: now ?? (() => new Date()),
    outside: site.channels !== undefined,
    recurring: now === undefined,
  });
  await fillTopic(connections[0], Math.min(users, 40));
  await makeTypes(connections[0]);
  const readers = lab.use(await openReaders(site, streams, random.int(0, 2 ** 31 - 1)));
  let sent = 0;
  let calls = 0;

  async function send(atLeast: number, end: Promise<unknown> = Promise.resolve()): Promise<void> {
    const goal = sent + atLeast;
    let over = false;
    const ending = end.finally(() => {
      over = true;
    });
    let failed = false;
    ending.catch(() => {
      failed = true;
    });
    const more = () => (sent < goal || !over) && !failed;
    const call = async () => {
      const asked = await some();
      sent += asked;
      calls++;
    };
    if (perSecond !== undefined) await atRate(perSecond, call, more);
    else
      await Promise.all(
        Array.from({ length: callers }, async () => {
          while (more()) {
            await call();
            // A fault that takes long is accompanied, not drowned.
            if (sent >= goal) await delay(100);
          }
        }),
      );
    await ending;
  }

  async function lacking(): Promise<{ open: number; behind: number }> {
    const [open] = await lab.sql<[{ n: number }]>`
      select (select count(*) from notifications where tenant_id = ${site.tenantId} and status in (1, 2, 3))::int
        + (select count(*) from fanouts where tenant_id = ${site.tenantId} and state = 1)::int as n`;
    const heads = await lab.sql<{ userId: string; seq: number }[]>`
      select user_id as "userId", seq::int from inbox_heads where tenant_id = ${site.tenantId}`;
    const behind = heads.filter(({ userId, seq }) => (readers.seen.get(userId)?.length ?? seq) < seq).length;
    return { open: open?.n ?? 0, behind };
  }

  return {
    readers,
    send,
    failures: account.failures,
    get sent() {
      return sent;
    },
    get calls() {
      return calls;
    },
    async verify(withinMs = 60_000) {
      const began = performance.now();
      const inTime = (work: Promise<unknown>) =>
        work.then(
          (): string[] => [],
          (error: Error) => [error.message],
        );
      const isThere = ({ open, behind }: Awaited<ReturnType<typeof lacking>>) => open + behind === 0;
      const late = await inTime(until(lacking, isThere, withinMs));
      const recoveryMs = Math.round(performance.now() - began);
      // What takes its time by itself, and what that brings to the inboxes.
      await Promise.all(account.confirming.values());
      // Before and after, because it goes both ways: a batch becomes what is to be decided, and that what is handed over.
      const toCome = async () => {
        const before = await yetToCome(lab.sql, site.tenantId);
        const now = await lacking();
        return { ...now, toCome: before + (await yetToCome(lab.sql, site.tenantId)) };
      };
      late.push(...(await inTime(until(toCome, (now) => isThere(now) && now.toCome === 0, withinMs))));
      const broken = [...late, ...(await brokenPromises(lab.sql, site, account, readers))];
      if (broken.length > 0) throw new PromisesBroken(broken);
      const failures = [...account.failures].map(([code, count]) => `${count}×${code}`).join(" ");
      return {
        sent,
        acknowledged: account.acknowledged.size,
        unanswered: account.unanswered,
        resumed: readers.resumed,
        failures,
        recoveryMs,
      };
    },
  };
}

/** Begins calls at a rate, as long as they are answered within about a second, and waits for all of them at the end. */
async function atRate(perSecond: number, call: () => Promise<void>, more: () => boolean): Promise<void> {
  const underWay = new Set<Promise<void>>();
  const began = performance.now();
  for (let begun = 0; more(); await delay(10)) {
    const due = ((performance.now() - began) / 1000) * perSecond;
    for (; begun < due; begun++) {
      if (underWay.size >= perSecond) continue;
      const one = call().finally(() => underWay.delete(one));
      underWay.add(one);
    }
  }
  await Promise.all(underWay);
}

/** The types whose notifications come together, and the one whose are handed over at most once. */
async function makeTypes(connection: Connection | undefined): Promise<void> {
  for (const key of Object.values(TOGETHER)) {
    const mode = key === TOGETHER.leading ? BatchRule_Mode.LEADING : BatchRule_Mode.TRAILING;
    const batching = { batchable: true, window: { seconds: 1n }, maxSize: 4, mode };
    await connection?.call(TypeService.method.createType, { type: { key, batching } });
  }
  const deliveryMode = DeliveryMode.AT_MOST_ONCE;
  await connection?.call(TypeService.method.createType, { type: { key: ONCE, deliveryMode } });
}

/** The topic that some Sends go to. */
async function fillTopic(connection: Connection | undefined, members: number): Promise<void> {
  await connection?.call(TopicService.method.upsertTopic, { topic: { key: TOPIC } });
  const userIds = Array.from({ length: members }, (_, n) => userName(n));
  await connection?.call(TopicService.method.addMembers, { key: TOPIC, userIds });
}

const SHOWN = 12;

export class PromisesBroken extends Error {
  constructor(broken: readonly string[]) {
    const more = broken.length > SHOWN ? [`… and ${broken.length - SHOWN} more`] : [];
    super([`${broken.length} promises broken:`, ...broken.slice(0, SHOWN), ...more].join("\n  "));
    this.name = "PromisesBroken";
  }
}
