import { create, toBinary } from "@bufbuild/protobuf";
import { ContentSchema, Priority, Status } from "#gen/posthorn/v1/notification_pb.ts";
import type { NewId } from "#src/ids.ts";
import type { Grouped } from "#src/inbox/group.ts";
import { commitDecisions } from "#src/pipeline/route/commit.ts";
import type { Store } from "#src/store/store.ts";

export type Arrival = {
  userId: string;
  type?: string;
  category?: string;
  title?: string;
  tags?: string[];
  expiresAt?: Date;
  /** Takes its content from this fan-out. */
  fanoutId?: string;
  group?: Grouped;
  sender?: string;
};

/** Puts accepted notifications into the database and delivers them in-app as the pipeline does. Returns their ids. */
export async function arrive(
  deps: { store: Store; newId: NewId; now: Date },
  tenantId: string,
  arrivals: readonly Arrival[],
): Promise<string[]> {
  const rows = arrivals.map((arrival) => ({ id: deps.newId(), ...arrival }));
  await deps.store.tenant(tenantId, async (tx) => {
    for (const row of rows) {
      const content = row.fanoutId
        ? null
        : toBinary(ContentSchema, create(ContentSchema, { title: row.title ?? "Hi" }));
      await tx`
        insert into notifications (tenant_id, id, user_id, type, category, priority, status, channels, content, tags,
          expires_at, updated_at, sender_id, fanout_id, group_key)
        values (${tenantId}, ${row.id}, ${row.userId}, ${row.type ?? "welcome"}, ${row.category ?? "general"},
          ${Priority.NORMAL}, ${Status.ACCEPTED}, 2, ${content}, ${row.tags ?? null}, ${row.expiresAt ?? null},
          ${deps.now}, ${row.sender ?? "sender-1"}, ${row.fanoutId ?? null}, ${row.group?.key ?? null})`;
    }
    await commitDecisions(
      tx,
      tenantId,
      rows.map(({ id, group }) => ({
        ...{ id, status: Status.DELIVERED, reason: 0, dueAt: undefined, detail: undefined },
        group,
      })),
      { now: deps.now, slot: 0, epoch: 7 },
    );
  });
  return rows.map((row) => row.id);
}
