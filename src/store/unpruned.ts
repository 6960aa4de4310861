import type { PendingQuery, Row } from "postgres";
import type { Tx } from "./store.ts";

// Postgres 18, up to 18.4 at least, goes wrong where one statement locks rows and, while it runs, leaves out partitions by a
// value it finds on the way: `notifications n join … t on n.id = t.id`, `i.arrived_at >= (select min(…) …)`. When a row was
// changed while its lock was waited for, Postgres checks it again, and that check and the statement share what leaves the
// partitions out. The check may look into the partition of another row, find nothing, and the row is passed over in
// silence; and with the check's end goes memory that the statement still uses: the server crashes.
//
// So no statement of ours does both. Rows of partitioned tables are locked by `id = any(…)`, of an array that is given or
// of `array(select id from locked)`, with bounds that are parameters besides: these leave partitions out before the
// statement begins, which is safe. What gives each row its own values joins them in a statement after the one that locked
// them, or takes them by something else than the partition key. A statement that only changes what its transaction has
// locked before has nothing checked again, and may join as it likes; it says so: `/* locked before */`.
// test/store/unpruned.test.ts reads the plans, and asks for every statement of the source that locks or changes such rows.

/**
 * `n.id = ${unpruned(tx, id)}` finds what `n.id = id` does and by the same index, but looks into every partition. Only
 * where what is locked has to be found by a join, row by row.
 */
export function unpruned(tx: Tx, id: PendingQuery<Row[]>): PendingQuery<Row[]> {
  return tx`any(array_append('{}'::uuid[], ${id}))`;
}
