// The table of the peer and what is asked of it, as the source documents do with their ORM: a row for each notification,
// pages by offset, unread counted when asked for.
import pg from "pg";

const CONNECTIONS = 32;

export async function openStore(databaseUrl) {
  const pool = new pg.Pool({ connectionString: databaseUrl, max: CONNECTIONS });
  await pool.query("create schema if not exists bench_peer");
  await pool.query(`
    create table if not exists bench_peer.notifications (
      id bigserial primary key, user_id text not null, title text not null, body text not null, data jsonb,
      status text not null default 'delivered', read_at timestamptz, created_at timestamptz not null default now()
    )`);
  await pool.query("create index if not exists by_user on bench_peer.notifications (user_id, id)");
  const query = async (text, values) => (await pool.query(text, values)).rows;
  return {
    insert: async ({ userId, title, body, data }) =>
      (
        await query(
          "insert into bench_peer.notifications (user_id, title, body, data) values ($1, $2, $3, $4) returning id, created_at",
          [userId, title, body, data],
        )
      )[0],
    after: (userId, id) =>
      query("select * from bench_peer.notifications where user_id = $1 and id > $2 order by id", [userId, id]),
    page: (userId, limit, offset) =>
      query("select * from bench_peer.notifications where user_id = $1 order by id desc limit $2 offset $3", [
        userId,
        limit,
        offset,
      ]),
    unread: (userId) =>
      query("select count(*)::int from bench_peer.notifications where user_id = $1 and read_at is null", [userId]),
    async close() {
      await pool.query("drop schema bench_peer cascade");
      await pool.end();
    },
  };
}
