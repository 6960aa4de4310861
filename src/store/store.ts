import { setTimeout as delay } from "node:timers/promises";
import { sql as statement } from "drizzle-orm";
import { drizzle, type PostgresJsDatabase } from "drizzle-orm/postgres-js";
import postgres, { type Sql, type TransactionSql } from "postgres";
import { WITH_ARRAYS } from "./array-types.ts";
import { safeBegin } from "./begin.ts";
import { type GateUse, poolGate } from "./gate.ts";
import { keepShort } from "./open-connections.ts";
import { pipelined, type Work } from "./pipelined.ts";
import { pgSockets } from "./sockets.ts";

export type StoreConfig = {
  url: string;
  /** Connections for the hot paths' raw statements. */
  hotPoolSize: number;
  /** Connections for everything built with Drizzle. */
  poolSize: number;
  statementTimeoutMs: number;
  lockTimeoutMs: number;
  /** False behind PgBouncer in transaction mode. */
  prepare: boolean;
};

/** What a query function takes: a transaction of one tenant, or of the system. */
export type Tx = TransactionSql;
export type Db = Parameters<Parameters<PostgresJsDatabase["transaction"]>[0]>[0];

/**
 * The way to Postgres. Every transaction belongs to one tenant and sees only its rows (row-level security), or to the
 * system, which sees all. A call that outlives the statement time-out plus five seconds is given up, and while there is no
 * way to Postgres calls are refused at once (DEPENDENCY_UNAVAILABLE): see gate.ts.
 */
export type Store = AsyncDisposable & {
  /**
   * Runs raw statements of one tenant in one transaction. For hot paths. Retried once when Postgres broke a deadlock. The
   * first statements go with BEGIN, and after `last` was called COMMIT with the last ones (pipelined.ts).
   */
  tenant<T>(tenantId: string, work: Work<T>): Promise<T>;
  /** The same for work that sends all of its statements before it waits for anything: one round trip. */
  tenantAtOnce<T>(tenantId: string, work: (tx: Tx) => Promise<T>): Promise<T>;
  /** Runs Drizzle queries of one tenant in one transaction. */
  tenantDb<T>(tenantId: string, work: (db: Db) => Promise<T>): Promise<T>;
  /** Runs raw statements over all tenants in one transaction. Only for the scheduler, the reconciler and credentials. */
  system<T>(work: (tx: Tx) => Promise<T>): Promise<T>;
  /** Whether `system` refuses what is asked but for one call, which looks whether Postgres is back and may take long. */
  systemIsAway(): boolean;
  /** Runs Drizzle queries over all tenants in one transaction. Only for the operator's methods. */
  systemDb<T>(work: (db: Db) => Promise<T>): Promise<T>;
  /** How the connections are used at this moment, by pool. */
  pools(): ({ name: string } & GateUse)[];
};

/** Calls waiting for a connection beyond this are refused: a queue that only grows helps nobody. */
const MAX_WAITING_PER_CONNECTION = 200;

const SYSTEM_POOL = 4;
const SYSTEM_COLD_POOL = 2;

/**
 * The raw statements find their rows by key, and the planner gets three things wrong for them. It plans them anew each
 * time, because it takes a batch for much of the table; with a year of months that is milliseconds of planning for less of
 * work: so one plan per connection. A plan made while a month is empty reads it from end to end, and is kept while it
 * fills: so by index. And it compiles what it thinks expensive: never.
 *
 * What locks rows of a partitioned table has to be written with care: see unpruned.ts.
 */
const BY_KEY = { plan_cache_mode: "force_generic_plan", enable_seqscan: "off", jit: "off" };

export function openStore(config: StoreConfig): Store {
  // A statement may be silent for as long as it may take. Given up a little later, so that the connection's end is known.
  const silenceMs = config.statementTimeoutMs + 2500;
  const deadlineMs = config.statementTimeoutMs + 5000;
  const connect = (role: "posthorn_tenant" | "posthorn_system", max: number, settings: Record<string, string> = {}) => {
    const client = postgres(config.url, {
      max,
      prepare: config.prepare,
      idle_timeout: 60,
      connect_timeout: 5,
      // The gate says when to try again.
      backoff: false,
      // Notices are the server talking to an operator's psql; ours go through the logger or nowhere.
      onnotice: () => undefined,
      connection: {
        application_name: "posthorn",
        statement_timeout: config.statementTimeoutMs,
        lock_timeout: config.lockTimeoutMs,
        idle_in_transaction_session_timeout: config.statementTimeoutMs,
        role,
        ...settings,
      } as Record<string, string | number>,
      ...WITH_ARRAYS,
      ...({ socket: pgSockets(silenceMs) } as object), // The driver's types do not know it.
    });
    keepShort(client);
    client.begin = safeBegin(client.begin) as Sql["begin"];
    return client;
  };
  const hot = connect("posthorn_tenant", config.hotPoolSize, BY_KEY);
  const cold = connect("posthorn_tenant", config.poolSize);
  const system = connect("posthorn_system", SYSTEM_POOL, BY_KEY);
  const systemCold = connect("posthorn_system", SYSTEM_COLD_POOL);
  // Drizzle replaces the parsers of the client it is given, so each style has clients of its own.
  const coldDb = drizzle(cold);
  const systemColdDb = drizzle(systemCold);
  const gate = (size: number) => poolGate({ size, maxCalls: size * MAX_WAITING_PER_CONNECTION, deadlineMs });
  const hotGate = gate(config.hotPoolSize);
  const coldGate = gate(config.poolSize);
  const systemGate = gate(SYSTEM_POOL);
  const systemColdGate = gate(SYSTEM_COLD_POOL);

  const beginHot = pipelined(hot);
  const tenant: Store["tenant"] = (tenantId, work) =>
    hotGate(() => retryDeadlock(() => beginHot(`set local posthorn.tenant = ${literal(tenantId)}`, work)));

  return {
    tenant,
    tenantAtOnce: (tenantId, work) =>
      tenant(tenantId, (tx, last) => {
        last();
        return work(tx);
      }),
    tenantDb: (tenantId, work) =>
      coldGate(() =>
        retryDeadlock(() =>
          coldDb.transaction(async (db) => {
            await db.execute(statement`select set_config('posthorn.tenant', ${tenantId}, true)`);
            return work(db);
          }),
        ),
      ),
    system: (work) => systemGate(() => retryDeadlock(() => begin(system, work))),
    systemIsAway: systemGate.isAway,
    systemDb: (work) => systemColdGate(() => retryDeadlock(() => systemColdDb.transaction(work))),
    pools: () => [
      { name: "hot", ...hotGate.use() },
      { name: "cold", ...coldGate.use() },
      { name: "system", ...systemGate.use() },
      { name: "system_cold", ...systemColdGate.use() },
    ],
    async [Symbol.asyncDispose]() {
      await Promise.all([hot, cold, system, systemCold].map((client) => client.end({ timeout: 5 })));
    },
  };
}

/** A text constant (standard_conforming_strings). */
function literal(text: string): string {
  return `'${text.replaceAll("'", "''")}'`;
}

function begin<T>(client: Sql, work: (tx: Tx) => Promise<T>): Promise<T> {
  return client.begin(work) as Promise<T>;
}

/** In which the other of two that were deadlocked takes what it waited for: else both may meet as before. */
const GIVE_WAY_MS = 10;

/** Postgres ends one of two deadlocked transactions; it is safe and right to run that one again, after the other. */
async function retryDeadlock<T>(work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    const code =
      (error as { code?: unknown; cause?: { code?: unknown } }).code ??
      (error as Error & { cause?: { code?: unknown } }).cause?.code;
    if (code !== "40P01" && code !== "40001" && !isOutdatedPlan(error)) throw error;
    await delay(GIVE_WAY_MS);
    return work();
  }
}

/** The schema has changed below a prepared statement. The driver has forgotten it by now, and prepares it anew. */
function isOutdatedPlan(error: unknown): boolean {
  const { code, routine } = error as { code?: unknown; routine?: unknown };
  return code === "0A000" && routine === "RevalidateCachedQuery";
}
