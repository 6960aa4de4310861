import { instants, plain, texts } from "#src/store/arrays.ts";
import type { Tx } from "#src/store/store.ts";
import type { Fragment } from "./queries.ts";

/** What an arrival is grouped by, and how its recipient wants groups to be. */
export type Grouped = { key: string; maxSize: number; windowMs: number };

/** Parts of the statement that makes deliveries: they stand after `placed`, and give its rows a `group_seq`. */
export type GroupParts = { assignment: Fragment; column: Fragment; join: Fragment };

/**
 * Has arrivals join the open group of their user and key, or open the next: when it is full, when its window has passed,
 * or when there is none. A group is named by the sequence of its first entry. Undefined when nothing is grouped, so that
 * what has no key pays nothing.
 *
 * The upsert finds a group as it is, whatever the statement's snapshot says, and only who holds the lock of an inbox's head
 * changes its groups. It tells what was open before (`previous_…`), from where the arrivals are counted on: the one at
 * place p = previous_size + nth - 1 is in the group that begins at the last multiple of max_size up to p.
 */
export function groupParts(
  tx: Tx,
  tenantId: string,
  arrivals: readonly { id: string; group?: Grouped | undefined }[],
  now: Date,
): GroupParts | undefined {
  const keyed = arrivals.flatMap(({ id, group }) => (group === undefined ? [] : [{ id, ...group }]));
  if (keyed.length === 0) return undefined;
  const assignment = tx`
    , keyed as (
      select * from unnest(
        ${plain(keyed.map(({ id }) => id))}::uuid[], ${texts(keyed.map(({ key }) => key))}::text[],
        ${plain(keyed.map(({ maxSize }) => maxSize))}::int[],
        ${instants(keyed.map(({ windowMs }) => new Date(now.getTime() - windowMs)))}::timestamptz[]
      ) as t (id, key, max_size, opened_after)
    ), numbered as materialized (
      select p.user_id, p.seq, k.key, k.max_size, k.opened_after,
        row_number() over (partition by p.user_id, k.key order by p.seq)::int as nth,
        count(*) over (partition by p.user_id, k.key)::int as many
      from placed p join keyed k on k.id = p.id
    ), opened as (
      insert into inbox_groups as g (tenant_id, user_id, key, group_seq, size, opened_at, previous_size)
      select ${tenantId}, user_id, key, max(seq) filter (where (nth - 1) % max_size = 0), (many - 1) % max_size + 1, ${now}, 0
      from numbered group by user_id, key, many, max_size order by user_id, key
      on conflict (tenant_id, user_id, key) do update
        set (group_seq, size, opened_at, previous_seq, previous_size) = (
          select coalesce(max(n.seq) filter (where (was.size + n.nth - 1) % n.max_size = 0), g.group_seq),
            (was.size + max(n.many) - 1) % max(n.max_size) + 1,
            case when bool_or((was.size + n.nth - 1) % n.max_size = 0) then ${now}::timestamptz else g.opened_at end,
            was.seq, was.size
          from numbered n
          cross join lateral (
            select case when goes_on then g.group_seq end as seq, case when goes_on then g.size else 0 end as size
            from (select g.size < n.max_size and g.opened_at > n.opened_after as goes_on) one
          ) was
          where n.user_id = g.user_id and n.key = g.key
          group by was.seq, was.size
        )
      returning user_id, key, previous_seq, previous_size
    ), grouped as (
      select n.user_id, n.seq, coalesce(first.seq, o.previous_seq) as group_seq
      from numbered n
      join opened o on o.user_id = n.user_id and o.key = n.key
      left join numbered first on first.user_id = n.user_id and first.key = n.key
        and first.nth = (o.previous_size + n.nth - 1) / n.max_size * n.max_size - o.previous_size + 1
    )`;
  return { assignment, column: tx`, group_seq`, join: tx`left join grouped using (user_id, seq)` };
}
