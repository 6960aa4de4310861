import { setTimeout as delay } from "node:timers/promises";
import postgres from "postgres";
import { Status } from "#gen/posthorn/v1/notification_pb.ts";

export type Recorded = { stored: number; open: number };

/** What Postgres says was kept: looked at directly, because the server is what is in question. */
export type Record = AsyncDisposable & {
  /** Whether any notification of a tenant waits for its decision. Costs the same whatever their number. */
  waiting(tenantId: string): Promise<boolean>;
  /** Counts a tenant's notifications once none waits for its decision, or when time is up. */
  settled(tenantId: string, limit: { withinMs: number; signal: AbortSignal }): Promise<Recorded>;
};

export function recordOf(databaseUrl: string): Record {
  const sql = postgres(databaseUrl, {
    max: 1,
    onnotice: () => undefined,
    connection: { role: "posthorn_system" } as { [name: string]: string },
  });
  const waiting = async (tenantId: string) => {
    const rows = await sql`
      select from notifications
      where tenant_id = ${tenantId} and priority in (1, 2, 3, 4) and status = ${sql.unsafe(String(Status.ACCEPTED))}
      limit 1`;
    return rows.length > 0;
  };
  return {
    waiting,
    async settled(tenantId, { withinMs, signal }) {
      for (const until = performance.now() + withinMs; performance.now() < until && (await waiting(tenantId)); )
        await delay(100, undefined, { signal });
      const [row] = await sql<Recorded[]>`
        select count(*)::int as stored, (count(*) filter (where status = ${Status.ACCEPTED}))::int as open
        from notifications where tenant_id = ${tenantId}`;
      return row ?? { stored: 0, open: 0 };
    },
    [Symbol.asyncDispose]: () => sql.end({ timeout: 2 }),
  };
}
