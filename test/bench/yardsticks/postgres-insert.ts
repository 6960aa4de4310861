// Rows of about a notification's size into a table with nothing but its key: what Postgres does at most on this machine.
import postgres from "postgres";
import { newIds } from "#src/ids.ts";
import { measure, serveJob, tell } from "../child-side.ts";

export type PostgresInsertJob = {
  url: string;
  /** Connections, each with one insert under way. */
  callers: number;
  rowsPerCommit: number;
  warmupMs: number;
  measureMs: number;
};

const CONTENT = Buffer.alloc(150, "x").toString();
const TENANT = "00000000-0000-7000-8000-000000000001";

serveJob<PostgresInsertJob>(async (job, closing) => {
  const sql = postgres(job.url, { max: job.callers, onnotice: () => undefined });
  closing(async () => {
    await sql`drop schema if exists bench_yardstick cascade`;
    await sql.end({ timeout: 2 });
  });
  await sql`create schema if not exists bench_yardstick`;
  await sql`drop table if exists bench_yardstick.notifications`;
  await sql`
    create table bench_yardstick.notifications (
      tenant_id uuid not null, id uuid not null, user_id text not null, content text not null,
      created_at timestamptz not null default now(), primary key (tenant_id, id)
    )`;
  const newId = newIds(() => new Date());
  const user = () => `u${Math.floor(Math.random() * 10_000)}`;
  const one = () => sql`
    insert into bench_yardstick.notifications (tenant_id, id, user_id, content)
    values (${TENANT}, ${newId()}, ${user()}, ${CONTENT})`;
  const many = () => {
    const rows = Array.from({ length: job.rowsPerCommit }, () => ({ id: newId(), user: user() }));
    return sql`
      insert into bench_yardstick.notifications (tenant_id, id, user_id, content)
      select ${TENANT}, * from unnest(
        ${rows.map(({ id }) => id)}::uuid[], ${rows.map(({ user }) => user)}::text[], ${rows.map(() => CONTENT)}::text[]
      )`;
  };
  const insert = job.rowsPerCommit === 1 ? one : many;
  tell(
    "result",
    await measure(job, async () => {
      await insert();
      return job.rowsPerCommit;
    }),
  );
});
