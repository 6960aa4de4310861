import { setImmediate as turn } from "node:timers/promises";
import type { Sql, TransactionSql } from "postgres";
import { Unreached } from "./gate.ts";

type Work = (tx: TransactionSql) => Promise<unknown>;

/**
 * The driver's `begin`, with what postgres.js 3.4.9 lacks at a transaction's end (porsager/postgres #1208, #1215):
 *
 * - It keeps the transaction bound to its connection. A statement that comes late, from the slower of two branches after
 *   the other has failed, would join what the connection does by then, another tenant's transaction. Here it throws.
 * - When the connection ends, its own ROLLBACK or COMMIT is written to no socket, which throws where nobody can catch it
 *   and ends the process. Here the work of a lost connection never settles, and the caller is told at once.
 * - The first transaction after that can be told the error of the connection before. Here it is begun again.
 *
 * That no answer to BEGIN came is told as Unreached.
 */
export function safeBegin(begin: Sql["begin"]): (work: Work) => Promise<unknown> {
  return (work) => onceMore((progress) => beginOnce(begin, work, progress));
}

/** Whether Postgres has begun the transaction. */
export type Progress = { began: boolean };

/** Begins again what the end of its connection came before. */
export async function onceMore<T>(run: (progress: Progress) => Promise<T>): Promise<T> {
  const first = { began: false };
  try {
    return await run(first);
  } catch (error) {
    if (first.began) throw error;
    if ((error as { severity?: string }).severity !== "FATAL") throw new Unreached(error);
  }
  const second = { began: false };
  try {
    return await run(second);
  } catch (error) {
    throw second.began ? error : new Unreached(error);
  }
}

/** If a connection has ended, that is known after this: a reset is told the query first, and a turn later as the end. */
export async function endIsKnown(): Promise<void> {
  await turn();
  await turn();
}

async function beginOnce(begin: Sql["begin"], work: Work, progress: Progress): Promise<unknown> {
  let over = false;
  let lost = false;
  try {
    return await begin(async (tx) => {
      progress.began = true;
      try {
        return await work(fenced(tx, () => over));
      } catch (error) {
        over = true;
        await endIsKnown();
        throw error;
      } finally {
        over = true;
        if (lost) await new Promise(() => undefined);
      }
    });
  } finally {
    over = true;
    lost = true;
  }
}

/** The transaction until it is over. */
function fenced(tx: TransactionSql, over: () => boolean): TransactionSql {
  const check = () => {
    if (over()) throw new Error("The transaction is over.");
  };
  return new Proxy(tx, {
    apply(target, self, args) {
      check();
      return Reflect.apply(target, self, args);
    },
    get(target, key) {
      check();
      return Reflect.get(target, key);
    },
  });
}
