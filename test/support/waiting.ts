import { create, toBinary } from "@bufbuild/protobuf";
import type { Sql } from "postgres";
import { ContentSchema, Priority, Status } from "#gen/posthorn/v1/notification_pb.ts";
import type { NewId } from "#src/ids.ts";
import type { Store } from "#src/store/store.ts";

export type Waiting = { userId: string; type?: string; status?: Status; priority?: Priority };

/** Puts notifications into the database that wait, or have ended otherwise. Answers their ids, in order. */
export async function wait(
  { store, newId, clock }: { store: Store; newId: NewId; clock: () => Date },
  tenantId: string,
  items: readonly Waiting[],
): Promise<string[]> {
  const now = clock();
  const rows = items.map(({ userId, type = "general", status = Status.ACCEPTED, priority = Priority.NORMAL }) => ({
    id: newId(),
    user_id: userId,
    type,
    priority,
    status,
    due_at: status === Status.SCHEDULED || status === Status.HELD ? new Date(now.getTime() + 3_600_000) : null,
  }));
  const content = toBinary(ContentSchema, create(ContentSchema, { title: "Hi" }));
  await store.tenant(
    tenantId,
    (tx) => tx`
      insert into notifications
        (tenant_id, id, user_id, type, category, priority, status, channels, content, due_at, updated_at)
      select ${tenantId}, id, user_id, type, 'general', priority, status, 2, ${content}, due_at, ${now}
      from jsonb_to_recordset(${tx.json(rows)}) as item(id uuid, user_id text, type text, priority smallint,
        status smallint, due_at timestamptz)`,
  );
  return rows.map(({ id }) => id);
}

/** Suppressed notifications that do not have exactly one such entry in their history, and counters that say otherwise. */
export async function wrongSuppressions(sql: Sql, tenantId: string): Promise<unknown[]> {
  const entries = await sql`
    select n.id, count(t.*)::int as entries from notifications n
    left join timeline t on t.tenant_id = n.tenant_id and t.notification_id = n.id and t.status = ${Status.SUPPRESSED}
    where n.tenant_id = ${tenantId} group by n.id, n.status
    having count(t.*) <> case when n.status = ${Status.SUPPRESSED} then 1 else 0 end`;
  const counters = await sql`
    select * from (
      select hour, type, sum(count)::int as counted from counters
      where tenant_id = ${tenantId} and status = ${Status.SUPPRESSED} and channel = 0 group by 1, 2
    ) c full join (
      select date_trunc('hour', t.at, 'UTC') as hour, n.type, count(*)::int as recounted
      from timeline t join notifications n on n.tenant_id = t.tenant_id and n.id = t.notification_id
      where t.tenant_id = ${tenantId} and t.status = ${Status.SUPPRESSED} group by 1, 2
    ) t using (hour, type)
    where counted is distinct from recounted`;
  return [...entries, ...counters];
}
