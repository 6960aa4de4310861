import type { Sql, TransactionSql } from "postgres";
import { endIsKnown, onceMore, type Progress } from "./begin.ts";

// BEGIN, statements and COMMIT without a round trip each. The driver's own `begin` waits for the answer to BEGIN before
// the first statement, and each wait is two turns at a busy processor. This does as it does (postgres.js 3.4.9,
// `begin` in src/index.js) but for the waiting, and with what begin.ts says that lacks.

/** What the driver's `begin` uses of a connection, and how it is ended. */
type Connection = {
  /** Sends, after all that was sent before. False: what follows has to wait for `reserved`. */
  execute(query: Query): boolean;
  /** Kept from others while set: called when all is answered, until no transaction is open any more. */
  reserved: (() => void) | null;
  onclose: ((error: unknown) => void) | null;
  /** Where the driver keeps it. */
  queue: { remove(connection: Connection): unknown };
  /** Tells all that it has not answered, and what is executed until it connects again. */
  terminate(): void;
};

/** A statement: executed as soon as somebody waits for it, by its handler. */
type Query = Promise<{ command?: string }> & {
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
  let onclose: Connection["onclose"] = null;
  let release: (() => void) | undefined;
  let failure: { error: unknown } | undefined;

  const onexecute = (connection: Connection) => {
    // Where there are several hosts the driver tells no query of the end of a connection that it takes for connecting.
    connection.queue.remove(connection);
    connection.queue = NOWHERE;
    line = lineOn(connection, begun, (error) => {
      progress.began = true;
      isOver = true;
      lost.reject(error);
    });
    onclose = (error) => {
      isLost = true;
      isOver = true;
      // What was sent since the socket failed would be taken for sent on the next.
      connection.terminate();
      lost.reject(error);
    };
    connection.onclose = onclose;
    release = () => {
      if (connection.onclose === onclose) connection.onclose = null;
    };
    taken.resolve();
    // To the driver it is full, so that it gives it nothing of others.
    return false;
  };
  const begun = client.unsafe(`begin;${opening}`, [], { onexecute } as object) as unknown as Query;
  begun.execute();
  begun.then(
    () => {
      progress.began = true;
    },
    () => {
      // Before the work hears of what it has sent: the connection may be another's by then.
      isOver = true;
    },
  );
  await Promise.race([taken.promise, begun]);

  const send = (query: Query) => {
    query.catch((error) => {
      failure ??= { error };
    });
    if (isLost) query.reject(new Over());
    else line?.send(query);
  };
  const end = (statement: "commit" | "rollback") => {
    isOver = true;
    return directed(client.unsafe(statement) as unknown as Query, send).execute();
  };
  const tx = within(client, {
    check() {
      if (isOver) throw new Over();
    },
    send: (query) => (isOver ? query.reject(new Over()) : send(query)),
  });
  const mustBeSound = () => {
    if (failure !== undefined) throw failure.error;
  };
  let committed: Query | undefined;
  const commit = () => {
    if (!isOver) committed ??= end("commit");
  };

  try {
    // After all microtasks, in which the driver hands statements on, and before the turn in which it writes them.
    const answer = work(tx, () => queueMicrotask(() => process.nextTick(commit)));
    const [result] = await Promise.race([Promise.all([answer, begun]), lost.promise]);
    mustBeSound();
    commit();
    const ended = await Promise.race([committed, lost.promise]);
    // Nor may have failed what nobody waited for.
    mustBeSound();
    if (ended?.command !== "COMMIT") throw rolledBack();
    return result;
  } catch (error) {
    isOver = true;
    await endIsKnown();
    // Where none has begun, the connection may be another's already.
    const toEnd = committed === undefined && !isLost && line?.isHeld();
    const ended = toEnd ? end("rollback") : committed;
    // Where none has, what waits to be sent may never be.
    await Promise.race([Promise.all([begun, ended]), lost.promise]).catch(() => undefined);
    throw comesAfterAnother(error) ? (failure?.error ?? error) : error;
  } finally {
    release?.();
  }
}

class Over extends Error {
  constructor() {
    super("The transaction is over.");
  }
}

const IN_FAILED_TRANSACTION = "25P02";

function comesAfterAnother(error: unknown): boolean {
  return error instanceof Over || (error as { code?: unknown }).code === IN_FAILED_TRANSACTION;
}

/**
 * COMMIT is answered so, and not with an error, after a statement has failed. The driver tells nobody of one whose plan the
 * schema has left behind: it sends it again, which here is after the end, where it sees no tenant's rows. To be run again.
 */
function rolledBack(): Error {
  const error = new Error("Postgres has rolled the transaction back");
  return Object.assign(error, { severity: "ERROR", code: "40001" });
}

const NOWHERE: Connection["queue"] = { remove: () => undefined };

/** Statements on their way to a connection, in order. */
type Line = {
  send(query: Query): void;
  /** Until all that was sent is answered and no transaction is open. */
  isHeld(): boolean;
};

/**
 * `onBroken`: it was not Postgres that refused a statement. The driver can make no bytes of it, or the connection has
 * failed. Nothing more is sent, and the connection is ended.
 */
function lineOn(connection: Connection, begun: Query, onBroken: (error: unknown) => void): Line {
  const waiting: Query[] = [];
  let isBlocked = false;
  let isBroken = false;
  let isEnding = false;
  let isSending = false;
  let unsendable: { error: unknown } | undefined;

  const isHeld = () => connection.reserved === reserved;
  const end = (error: unknown) => {
    isBroken = true;
    isEnding = true;
    waiting.length = 0;
    onBroken(error);
    // After the turn in which the driver writes what is before it: else it never writes on this connection again.
    setImmediate(() => isHeld() && connection.terminate());
  };
  // Of one that it cannot send the driver tells the one that is being answered, and then waits for an answer to it. Where
  // none is, Postgres hears nothing of it, and would do what is behind: COMMIT, it may be.
  const watch = (query: Query) => {
    const reject = query.reject;
    query.reject = (error) => {
      if (isSending) {
        unsendable = { error };
        return;
      }
      reject(error);
      if (query === begun) isBroken = true;
      else if (!isBroken && !isOfPostgres(error)) end(error);
    };
  };
  const go = () => {
    for (let next = waiting.shift(); next !== undefined; next = isBlocked ? undefined : waiting.shift()) {
      isSending = true;
      isBlocked = !connection.execute(next);
      isSending = false;
      if (unsendable !== undefined) return next.reject(unsendable.error);
    }
  };
  const reserved = () => {
    isBlocked = false;
    go();
  };
  watch(begun);
  connection.reserved = reserved;
  return {
    send(query) {
      if (isEnding) return query.reject(new Over());
      watch(query);
      waiting.push(query);
      if (!isBlocked) go();
    },
    isHeld,
  };
}

function isOfPostgres(error: unknown): boolean {
  return typeof error === "object" && error !== null && "severity" in error;
}

/** The client with its statements sent elsewhere. */
function within(client: Sql, line: { check(): void; send(query: Query): void }): TransactionSql {
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
