import { until } from "../../support/until.ts";
import { type Connection, connectTo } from "./connection.ts";
import type { Facts, Lab, Site } from "./lab.ts";
import { seededRandom } from "./random.ts";
import { openReaders, type Readers } from "./readers.ts";
import { sender } from "./sender.ts";
import { brokenPromises } from "./verify.ts";

export type LedgerOptions = {
  seed: number;
  users: number;
  /** Of the users, how many have a stream open; default: all. */
  streams?: number;
  /** Calls under way at the same time; default 16. */
  callers?: number;
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
  /**
   * Waits until nothing waits for a decision any more and every stream has given what its inbox holds, then compares all
   * with the database. Returns how long the wait was.
   *
   * @throws with every broken promise, when it does not become so in time or something is not as promised.
   */
  verify(withinMs?: number): Promise<Facts & { recoveryMs: number }>;
};

export async function openLedger(lab: Lab, site: Site, options: LedgerOptions): Promise<Ledger> {
  const { seed, users, streams = users, callers = 16 } = options;
  const random = seededRandom(seed);
  const connections: Connection[] = site.nodes.map(({ address }) => lab.use(connectTo(address, site.apiKey)));
  const { account, some } = sender({ connections, random, users, name: `n${seed}` });
  const readers = lab.use(await openReaders(site, streams, random.int(0, 2 ** 31 - 1)));
  let sent = 0;

  async function send(atLeast: number, end: Promise<unknown> = Promise.resolve()): Promise<void> {
    const goal = sent + atLeast;
    let over = false;
    const ending = end.finally(() => {
      over = true;
    });
    const failed = new AbortController();
    ending.catch(() => failed.abort());
    await Promise.all(
      Array.from({ length: callers }, async () => {
        while ((sent < goal || !over) && !failed.signal.aborted) {
          sent += await some();
          // A fault that takes long is accompanied, not drowned.
          if (sent >= goal) await new Promise((done) => setTimeout(done, 100));
        }
      }),
    );
    await ending;
  }

  async function lacking(): Promise<{ open: number; behind: number }> {
    const [open] = await lab.sql<[{ n: number }]>`
      select count(*)::int as n from notifications where tenant_id = ${site.tenantId} and status in (1, 2, 3)`;
    const heads = await lab.sql<{ userId: string; seq: number }[]>`
      select user_id as "userId", seq::int from inbox_heads where tenant_id = ${site.tenantId}`;
    const behind = heads.filter(({ userId, seq }) => (readers.seen.get(userId)?.length ?? seq) < seq).length;
    return { open: open?.n ?? 0, behind };
  }

  return {
    readers,
    send,
    get sent() {
      return sent;
    },
    async verify(withinMs = 60_000) {
      const began = performance.now();
      const late = await until(lacking, ({ open, behind }) => open + behind === 0, withinMs).then(
        () => undefined,
        (error: Error) => error.message,
      );
      const recoveryMs = Math.round(performance.now() - began);
      const broken = await brokenPromises(lab.sql, site.tenantId, account, readers);
      if (late !== undefined) broken.unshift(late);
      if (broken.length > 0)
        throw new PromisesBroken(
          broken,
          site.nodes.flatMap((node) => node.lines().slice(-20)),
        );
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

const SHOWN = 12;

export class PromisesBroken extends Error {
  constructor(broken: readonly string[], lines: readonly string[]) {
    const more = broken.length > SHOWN ? [`… and ${broken.length - SHOWN} more`] : [];
    super([`${broken.length} promises broken:`, ...broken.slice(0, SHOWN), ...more, ...lines].join("\n  "));
    this.name = "PromisesBroken";
  }
}
