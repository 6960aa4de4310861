import type { Sql, TransactionSql } from "postgres";
import { endIsKnown, onceMore, type Progress } from "./begin.ts";

// BEGIN, statements and COMMIT without a round trip each. The driver's own `begin` waits for the answer to BEGIN before
// the first statement, and each wait is two turns at a busy processor. This does as it does (postgres.js 3.4.9,
// `begin` in src/index.js) but for the waiting, and with what begin.ts says that lacks.

/** What the driver's `begin` uses of a connection. */
type Connection = {
  /** Sends, after all that was sent before. False: what follows has to wait for `reserved`. */
  execute(query: Query): boolean;
  /** Kept from others while set: called when all is answered, until no transaction is open any more. */
  reserved: (() => void) | null;
  onclose: ((error: unknown) => void) | null;
};

/** A statement: executed as soon as somebody waits for it, by its handler. */
type Query = Promise<unknown> & {
  handler(query: Query): unknown;
  reject(error: unknown): void;
  execute(): Query;
};

/**
 * What runs in a transaction. It calls `last` when what it sends until it next waits for an answer is all: COMMIT then goes
 * with that. If one of these fails, nothing is done; but what the work throws by itself after that comes too late.
 */
export type Work<T> = (tx: TransactionSql, last: () => void) => Promise<T>;

/**
 * Runs a transaction that begins with `opening`. BEGIN is not waited for: should it fail where the connection goes on,
 * the statements behind it run alone, so they must do nothing without what `opening` sets.
 */
export function pipelined(client: Sql): <T>(opening: string, work: Work<T>) => Promise<T> {
  return (opening, work) => onceMore((progress) => run(client, opening, work, progress));
}

async function run<T>(client: Sql, opening: string, work: Work<T>, progress: Progress): Promise<T> {
  const taken = Promise.withResolvers<void>();
  const lost = Promise.withResolvers<never>();
  lost.promise.catch(() => undefined);
  let line: Line | undefined;
  let isLost = false;
  let isOver = false;
  let failure: { error: unknown } | undefined;

  const onexecute = (connection: Connection) => {
    line = lineOn(connection);
    connection.onclose = (error) => {
      isLost = true;
      lost.reject(error);
    };
    taken.resolve();
    // To the driver it is full, so that it gives it nothing of others.
    return false;
  };
  const begun = client.unsafe(`begin;${opening}`, [], { onexecute } as object).execute();
  begun.then(
    () => {
      progress.began = true;
    },
    () => undefined,
  );
  await Promise.race([taken.promise, begun]);

  const send = (query: Query) => {
    query.catch((error) => {
      failure ??= { error };
    });
    line?.send(query);
  };
  const end = (statement: "commit" | "rollback") => {
    isOver = true;
    return directed(client.unsafe(statement) as unknown as Query, send).execute();
  };
  const tx = within(client, {
    check() {
      if (isOver) throw new Error("The transaction is over.");
    },
    send: (query) => (isOver ? query.reject(new Error("The transaction is over.")) : send(query)),
  });
  let committed: Promise<unknown> | undefined;
  const commit = () => {
    if (!isOver) committed ??= end("commit");
  };

  try {
    // After all microtasks, in which the driver hands statements on, and before the turn in which it writes them.
    const answer = work(tx, () => queueMicrotask(() => process.nextTick(commit)));
    const [result] = await Promise.race([Promise.all([answer, begun]), lost.promise]);
    if (failure !== undefined) throw failure.error;
    commit();
    await Promise.race([committed, lost.promise]);
    return result;
  } catch (error) {
    isOver = true;
    await endIsKnown();
    // Where none has begun, the connection may be another's already.
    const toEnd = committed === undefined && !isLost && (await Promise.race([begun, lost.promise]).then(yes, no));
    const ended = toEnd ? end("rollback") : committed;
    await Promise.race([ended, lost.promise]).catch(() => undefined);
    throw (error as { code?: unknown }).code === IN_FAILED_TRANSACTION ? (failure?.error ?? error) : error;
  }
}

const IN_FAILED_TRANSACTION = "25P02";

const yes = () => true;
const no = () => false;

/** Statements on their way to a connection, in order. */
type Line = { send(query: Query): void };

function lineOn(connection: Connection): Line {
  const waiting: Query[] = [];
  let isBlocked = false;
  const go = () => {
    for (let next = waiting.shift(); next !== undefined; next = isBlocked ? undefined : waiting.shift())
      isBlocked = !connection.execute(next);
  };
  connection.reserved = () => {
    isBlocked = false;
    go();
  };
  return {
    send(query) {
      waiting.push(query);
      if (!isBlocked) go();
    },
  };
}

/** The client with its statements sent elsewhere. */
function within(client: Sql, line: { check(): void } & Line): TransactionSql {
  const directing = (made: unknown) => (isQuery(made) ? directed(made, line.send) : made);
  return new Proxy(client, {
    apply(target, self, args) {
      line.check();
      return directing(Reflect.apply(target, self, args));
    },
    get(target, key) {
      line.check();
      const value = Reflect.get(target, key);
      return key === "unsafe" ? (...args: unknown[]) => directing(Reflect.apply(value, target, args)) : value;
    },
  }) as unknown as TransactionSql;
}

function directed(query: Query, handler: Query["handler"]): Query {
  query.handler = handler;
  return query;
}

function isQuery(made: unknown): made is Query {
  return made instanceof Promise && "handler" in made;
}
