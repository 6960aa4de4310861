import { sql } from "drizzle-orm";
import { bigint, boolean, index, integer, jsonb, pgTable, primaryKey, smallint, text, uuid } from "drizzle-orm/pg-core";
import { bytea, instant } from "./columns.ts";

// Status, priority, channel and reason are stored as the numbers the contract gives them.

/** Partitioned by month of id: a UUIDv7 begins with its millisecond, so a look-up by id reads one partition. */
export const notifications = pgTable(
  "notifications",
  {
    tenantId: uuid("tenant_id").notNull(),
    id: uuid("id").notNull(),
    userId: text("user_id").notNull(),
    type: text("type").notNull(),
    category: text("category").notNull(),
    priority: smallint("priority").notNull(),
    status: smallint("status").notNull(),
    reason: smallint("reason").notNull().default(0),
    /** Bit n is set when channel n was asked for. */
    channels: integer("channels").notNull(),
    /** Encoded posthorn.v1.Content; null when the fan-out holds it for all its notifications. */
    content: bytea("content"),
    tags: text("tags").array(),
    bypassLimits: boolean("bypass_limits").notNull().default(false),
    attempts: smallint("attempts").notNull().default(0),
    scheduledAt: instant("scheduled_at"),
    expiresAt: instant("expires_at"),
    /** SCHEDULED, HELD, and BATCHED in a batch that was dissolved: when the scheduler releases it. Null otherwise. */
    dueAt: instant("due_at"),
    /** HELD by a limit: the turn it was given, which it keeps through the release. */
    bookedAt: instant("booked_at"),
    /** ACCEPTED: when it was last put on the queue again, by a release or the reconciler. */
    queuedAt: instant("queued_at"),
    deliveredAt: instant("delivered_at"),
    updatedAt: instant("updated_at").notNull(),
    /** Its entry in the user's inbox. */
    inboxSeq: bigint("inbox_seq", { mode: "number" }),
    dedupKey: text("dedup_key"),
    collapseKey: text("collapse_key"),
    senderId: text("sender_id"),
    fanoutId: uuid("fanout_id"),
    /** The wall-clock time that scheduled_at is in the recipient's zone, and how long after it expires_at is. */
    localTime: text("local_time"),
    localTtlMs: bigint("local_ttl_ms", { mode: "number" }),
    /** The batch it has to do with, and how: see batches/role.ts. Null: with none. */
    batchId: uuid("batch_id"),
    batchRole: smallint("batch_role"),
    /** When it first joined a batch: a window does not begin anew because the rules changed. */
    batchedAt: instant("batched_at"),
    /** What it is grouped by in the inbox. */
    groupKey: text("group_key"),
    /** Encoded posthorn.v1.Escalation, as sent; null: nothing was said. */
    escalation: bytea("escalation"),
    /** Its recipient is asked to confirm it. Null: not, or not yet decided. */
    confirmationRequired: boolean("confirmation_required"),
    confirmedAt: instant("confirmed_at"),
  },
  (t) => [
    primaryKey({ columns: [t.tenantId, t.id] }),
    // The tenant comes second in these two, because the planner must not take them for look-ups by tenant and id: while a
    // month is young and without statistics it finds them as good as the primary key, and reads all of the tenant's rows.
    index("notifications_user").on(t.userId, t.tenantId, t.id),
    // The reconciler and queue positions: only what waits for its first or next decision.
    index("notifications_waiting").on(t.priority, t.tenantId, t.id).where(sql`status = 1`),
    // The scheduler: what is due, by urgency.
    index("notifications_due").on(t.priority, t.dueAt).where(sql`due_at is not null`),
    // Lists by status, for every status that is not the usual one.
    index("notifications_exceptions").on(t.tenantId, t.status, t.id).where(sql`status not in (1, 7, 8)`),
    index("notifications_collapse")
      .on(t.tenantId, t.userId, t.collapseKey)
      .where(sql`collapse_key is not null and status in (1, 2, 3, 4)`),
    // What waits for a time, by user: decided anew when the user's preferences change.
    index("notifications_waiting_user").on(t.tenantId, t.userId).where(sql`status in (2, 3, 4)`),
    index("notifications_batch").on(t.tenantId, t.batchId, t.id).where(sql`batch_id is not null`),
    index("notifications_fanout").on(t.tenantId, t.fanoutId, t.id).where(sql`fanout_id is not null`),
  ],
);

/** What happened to a notification after ACCEPTED (which its row tells), append-only. Partitioned by its month. */
export const timeline = pgTable(
  "timeline",
  {
    tenantId: uuid("tenant_id").notNull(),
    notificationId: uuid("notification_id").notNull(),
    at: instant("at").notNull(),
    status: smallint("status").notNull(),
    channel: smallint("channel").notNull(),
    reason: smallint("reason").notNull(),
    actor: text("actor"),
    /** Encoded posthorn.v1.TimelineEntry with only verdicts and rate_limit. */
    detail: bytea("detail"),
  },
  (t) => [index("timeline_notification").on(t.tenantId, t.notificationId)],
);

/** A user's inbox. Partitioned by month of arrival. */
export const inbox = pgTable(
  "inbox",
  {
    tenantId: uuid("tenant_id").notNull(),
    userId: text("user_id").notNull(),
    seq: bigint("seq", { mode: "number" }).notNull(),
    arrivedAt: instant("arrived_at").notNull(),
    notificationId: uuid("notification_id").notNull(),
    type: text("type").notNull(),
    category: text("category").notNull(),
    priority: smallint("priority").notNull(),
    tags: text("tags").array(),
    readAt: instant("read_at"),
    archivedAt: instant("archived_at"),
    snoozedUntil: instant("snoozed_until"),
    expiresAt: instant("expires_at"),
    /** The sequence of the first entry of its group, which is the group's name. */
    groupSeq: bigint("group_seq", { mode: "number" }),
    /** When its sender last changed what it shows, which gave it its sequence. */
    updatedAt: instant("updated_at"),
  },
  (t) => [
    primaryKey({ columns: [t.tenantId, t.userId, t.seq, t.arrivedAt] }),
    // Lists by groups; what has none pays nothing.
    index("inbox_group").on(t.tenantId, t.userId, t.groupSeq, t.seq).where(sql`group_seq is not null`),
    index("inbox_unread")
      .on(t.tenantId, t.userId, t.seq)
      .where(sql`read_at is null and archived_at is null and snoozed_until is null`),
    // Lists of the archive and of what is snoozed; arrivals pay nothing for it.
    index("inbox_put_away")
      .on(t.tenantId, t.userId, t.seq)
      .where(sql`archived_at is not null or snoozed_until is not null`),
    index("inbox_expiry").on(t.expiresAt).where(sql`expires_at is not null`),
    index("inbox_snoozed").on(t.snoozedUntil).where(sql`snoozed_until is not null`),
  ],
);

/** One row per inbox: its row lock orders arrivals, so that sequences are commit order and have no holes. */
export const inboxHeads = pgTable(
  "inbox_heads",
  {
    tenantId: uuid("tenant_id").notNull(),
    userId: text("user_id").notNull(),
    /** Changes when the inbox is erased and begins anew; cursors carry it. */
    epoch: integer("epoch").notNull(),
    seq: bigint("seq", { mode: "number" }).notNull(),
    /** Entries up to here may have been removed by retention. */
    trimmedSeq: bigint("trimmed_seq", { mode: "number" }).notNull().default(0),
    seenSeq: bigint("seen_seq", { mode: "number" }).notNull().default(0),
    unread: integer("unread").notNull(),
    total: integer("total").notNull(),
    archived: integer("archived").notNull().default(0),
    snoozed: integer("snoozed").notNull().default(0),
  },
  (t) => [primaryKey({ columns: [t.tenantId, t.userId] })],
);

/** The groups that may still take in entries, by user and key. Changed under the lock of the inbox's head. */
export const inboxGroups = pgTable(
  "inbox_groups",
  {
    tenantId: uuid("tenant_id").notNull(),
    userId: text("user_id").notNull(),
    key: text("key").notNull(),
    /** The sequence of its first entry. */
    groupSeq: bigint("group_seq", { mode: "number" }).notNull(),
    size: integer("size").notNull(),
    openedAt: instant("opened_at").notNull(),
    /** Before the last change, for the statement that made it: the group that was still open, and its size. */
    previousSeq: bigint("previous_seq", { mode: "number" }),
    previousSize: integer("previous_size").notNull(),
  },
  (t) => [primaryKey({ columns: [t.tenantId, t.userId, t.key] }), index("inbox_groups_opened").on(t.openedAt)],
);

/** A send to a topic, a role or everyone, and how far it has come. */
export const fanouts = pgTable(
  "fanouts",
  {
    tenantId: uuid("tenant_id").notNull(),
    id: uuid("id").notNull(),
    state: smallint("state").notNull(),
    priority: smallint("priority").notNull(),
    /** Encoded posthorn.v1.SendRequest. */
    request: bytea("request").notNull(),
    /** Encoded posthorn.v1.Content, for its notifications. */
    content: bytea("content").notNull(),
    actor: text("actor").notNull(),
    /** Where the next page begins: index of the audience and the last user id done. */
    cursor: jsonb("cursor").notNull(),
    created: bigint("created", { mode: "number" }).notNull().default(0),
    deduplicated: bigint("deduplicated", { mode: "number" }).notNull().default(0),
    createdAt: instant("created_at").notNull(),
    endedAt: instant("ended_at"),
    /** RUNNING: a worker that has not moved it by then is taken for dead. */
    leaseUntil: instant("lease_until"),
    /** Members for whom the asked-for time was before get nothing. */
    skipBefore: instant("skip_before"),
  },
  (t) => [
    primaryKey({ columns: [t.tenantId, t.id] }),
    index("fanouts_ended").on(t.endedAt).where(sql`ended_at is not null`),
    index("fanouts_lease").on(t.leaseUntil).where(sql`lease_until is not null`),
  ],
);

export const idempotencyKeys = pgTable(
  "idempotency_keys",
  {
    tenantId: uuid("tenant_id").notNull(),
    key: text("key").notNull(),
    requestHash: bytea("request_hash").notNull(),
    /** Encoded posthorn.v1.SendResponse: what every repeat is answered. */
    response: bytea("response").notNull(),
    expiresAt: instant("expires_at").notNull(),
  },
  (t) => [primaryKey({ columns: [t.tenantId, t.key] }), index("idempotency_keys_expiry").on(t.expiresAt)],
);

export const dedupKeys = pgTable(
  "dedup_keys",
  {
    tenantId: uuid("tenant_id").notNull(),
    userId: text("user_id").notNull(),
    key: text("key").notNull(),
    notificationId: uuid("notification_id").notNull(),
    expiresAt: instant("expires_at").notNull(),
  },
  (t) => [primaryKey({ columns: [t.tenantId, t.userId, t.key] }), index("dedup_keys_expiry").on(t.expiresAt)],
);
