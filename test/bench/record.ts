import { setTimeout as delay } from "node:timers/promises";
import postgres from "postgres";
import { Status } from "#gen/posthorn/v1/notification_pb.ts";

/** What Postgres says was kept: looked at directly, because the server is what is in question. */
export type Record = AsyncDisposable & {
  /** Counts a tenant's notifications once none waits for its decision, or when time is up. */
  settled(
    tenantId: string,
    limit: { withinMs: number; signal: AbortSignal },
  ): Promise<{ stored: number; open: number }>;
};

export function recordOf(databaseUrl: string): Record {
  const sql = postgres(databaseUrl, {
    max: 1,
    onnotice: () => undefined,
    connection: { role: "posthorn_system" } as { [name: string]: string },
  });
  return {
    async settled(tenantId, { withinMs, signal }) {
      for (const until = performance.now() + withinMs; ; ) {
        const [row] = await sql<{ stored: number; open: number }[]>`
          select count(*)::int as stored, (count(*) filter (where status = ${Status.ACCEPTED}))::int as open
          from notifications where tenant_id = ${tenantId}`;
        const { stored, open } = row ?? { stored: 0, open: 0 };
        if (open === 0 || performance.now() > until) return { stored, open };
        await delay(100, undefined, { signal });
      }
    },
    [Symbol.asyncDispose]: () => sql.end({ timeout: 2 }),
  };
}
