import { DeliveryMode } from "#gen/posthorn/v1/type_service_pb.ts";
import type { Command } from "#src/escalation/state.ts";
import { toldOf } from "#src/escalation/told.ts";
import { idRange } from "#src/inbox/queries.ts";
import { fenceNames, type RulesVersion, sharedFence } from "#src/preferences/fence.ts";
import { bytes, plain } from "#src/store/arrays.ts";
import type { Tx } from "#src/store/store.ts";

export type Due = {
  tenantId: string;
  notificationId: string;
  userId: string;
  /** The recorded trace that goes on in its steps. */
  trace: string | null;
};

/** Chains that are due, the longest due first, without their locks. */
export async function dueChains(tx: Tx, now: Date, limit: number): Promise<Due[]> {
  return tx<Due[]>`
    select tenant_id as "tenantId", notification_id as "notificationId", user_id as "userId", trace from escalations
    where due_at <= ${now} order by due_at limit ${limit}`;
}

/** What is asked about one of them. */
export type Subject = {
  id: string;
  type: string;
  category: string;
  priority: number;
  status: number;
  bypassLimits: boolean;
  expiresAt: Date | null;
  senderId: string | null;
  /** Its type's delivery mode. */
  atMostOnce: boolean;
  /** What the rules of its user are now. */
  rules: RulesVersion;
};

/**
 * The notifications, locked; those that somebody else has in hand are left out. The fence of their users' rules is taken
 * first, since a step may be held (preferences/fence.ts).
 */
export async function lockDue(tx: Tx, tenantId: string, due: readonly Due[]): Promise<Subject[]> {
  const fence = fenceNames(tenantId, ["", ...due.map(({ userId }) => userId)]);
  await tx`select ${sharedFence(tx, fence)}`;
  const { ids: sorted, first, last } = idRange(due.map(({ notificationId }) => notificationId));
  const rows = await tx<(Omit<Subject, "rules"> & RulesVersion)[]>`
    select id, type, category, priority, status, bypass_limits as "bypassLimits", expires_at as "expiresAt",
      sender_id as "senderId",
      coalesce((select t.delivery_mode = ${DeliveryMode.AT_MOST_ONCE} from types t
        where t.tenant_id = ${tenantId} and t.key = n.type), false) as "atMostOnce",
      coalesce((select p.xmin::text from preferences p where p.tenant_id = ${tenantId} and p.user_id = n.user_id), '0')
        as user,
      coalesce((select d.xmin::text from default_preferences d where d.tenant_id = ${tenantId}), '0') as tenant,
      coalesce((select u.time_zone from users u where u.tenant_id = ${tenantId} and u.id = n.user_id), '') as zone
    from notifications n
    where tenant_id = ${tenantId} and id = any(${sorted}::uuid[]) and id between ${first}::uuid and ${last}::uuid
    order by id for update of n skip locked`;
  return rows.map(({ user, tenant, zone, ...subject }) => ({ ...subject, rules: { user, tenant, zone } }));
}

/** Writes into the histories what became of steps; that one was handed over is told by who does it. */
export async function tellSteps(
  tx: Tx,
  tenantId: string,
  told: readonly { notificationId: string; command: Command }[],
  now: Date,
): Promise<void> {
  const entries = told.flatMap(({ notificationId, command }) => {
    const entry = toldOf(command);
    return entry === undefined ? [] : [{ notificationId, ...entry }];
  });
  if (entries.length === 0) return;
  await tx`
    insert into timeline (tenant_id, notification_id, at, status, channel, reason, detail)
    select ${tenantId}, id, ${now}, 0, channel, reason, detail
    from unnest(
      ${plain(entries.map(({ notificationId }) => notificationId))}::uuid[],
      ${plain(entries.map(({ channel }) => channel))}::smallint[],
      ${plain(entries.map(({ reason }) => reason))}::smallint[],
      ${bytes(entries.map(({ detail }) => detail))}::bytea[]
    ) as t (id, channel, reason, detail)`;
}
