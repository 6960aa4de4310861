import type { Clock } from "#src/clock.ts";
import { inTurn } from "#src/in-turn.ts";
import type { InboxEntryRow } from "#src/inbox/entry.ts";
import { readHeads, replay } from "#src/inbox/queries.ts";
import type { Store } from "#src/store/store.ts";

/** Entries after a sequence, oldest first, and the epoch of the inbox they were read from. */
export type Replayed = { epoch: number | undefined; rows: InboxEntryRow[] };

/** What a stream has missed: at most `most` entries of the user after the sequence. */
export type Missed = { tenantId: string; userId: string; afterSeq: number; most: number };

type Asked = Missed & { resolve: (replayed: Replayed) => void; reject: (error: unknown) => void };

/** Entries read in one statement: at 24 KiB of content each, some ten megabytes. */
const ROWS = 400;
/** Statements at the same time: fewer than the pool has connections, which a Send needs too. */
const AT_ONCE = 3;

/**
 * Reads what streams have missed, those of a tenant that ask at the same time together: when a server restarts, its ten
 * thousand clients come back within seconds, and a transaction for each would be half of what that costs. In the order of
 * asking, whatever the tenant.
 */
export function replayReader(store: Store, clock: Clock): (missed: Missed) => Promise<Replayed> {
  const waiting = new Map<string, Asked[]>();
  const aFew = inTurn(AT_ONCE);

  /** As many as one statement may read. A user's second stream goes with the next: rows are told apart by their user. */
  function takeBatch(tenantId: string): Map<string, Asked> {
    const batch = new Map<string, Asked>();
    const rest: Asked[] = [];
    let rows = 0;
    for (const asked of waiting.get(tenantId) ?? []) {
      const fits = batch.size === 0 || rows + asked.most <= ROWS;
      if (!fits || batch.has(asked.userId)) rest.push(asked);
      else {
        batch.set(asked.userId, asked);
        rows += asked.most;
      }
    }
    if (rest.length > 0) waiting.set(tenantId, rest);
    else waiting.delete(tenantId);
    return batch;
  }

  async function readNext(tenantId: string): Promise<void> {
    // Of those who asked with one that has been read meanwhile.
    if (!waiting.has(tenantId)) return;
    // What comes with the same packet joins.
    await new Promise((resolve) => setImmediate(resolve));
    const batch = takeBatch(tenantId);
    if (batch.size === 0) return;
    try {
      const replayed = await store.tenantAtOnce(tenantId, async (tx) => {
        // The heads after the entries: were one another inbox's, its entries might be too.
        const [rows, heads] = await Promise.all([
          replay(tx, tenantId, [...batch.values()], clock()),
          readHeads(tx, tenantId, [...batch.keys()]),
        ]);
        return { rows: Map.groupBy(rows, (row) => row.userId), heads };
      });
      for (const [userId, { resolve }] of batch)
        resolve({ epoch: replayed.heads.get(userId)?.epoch, rows: replayed.rows.get(userId) ?? [] });
    } catch (error) {
      for (const { reject } of batch.values()) reject(error);
    }
  }

  return (missed) =>
    new Promise((resolve, reject) => {
      const asked = { ...missed, resolve, reject };
      const others = waiting.get(missed.tenantId);
      if (others === undefined) waiting.set(missed.tenantId, [asked]);
      else others.push(asked);
      // One turn for each, so that whatever is left of a batch has one of its own.
      void aFew(() => readNext(missed.tenantId));
    });
}
