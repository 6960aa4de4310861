import { sql } from "drizzle-orm";
import { index, integer, pgTable, primaryKey, smallint, text, uniqueIndex, uuid } from "drizzle-orm/pg-core";
import { instant } from "./columns.ts";

/** Batches and digests. Kind and state are the contract's numbers; their members are notifications with `batch_id`. */
export const batches = pgTable(
  "batches",
  {
    tenantId: uuid("tenant_id").notNull(),
    id: uuid("id").notNull(),
    userId: text("user_id").notNull(),
    kind: smallint("kind").notNull(),
    /** What comes together: `d` for the digest, else type, priority and channels. */
    key: text("key").notNull(),
    type: text("type").notNull(),
    category: text("category").notNull(),
    /** 0 for a digest. */
    priority: smallint("priority").notNull(),
    state: smallint("state").notNull(),
    openedAt: instant("opened_at").notNull(),
    /** When it is to be closed. */
    flushAt: instant("flush_at").notNull(),
    /** How far a sliding window may move `flush_at`. */
    latestFlushAt: instant("latest_flush_at").notNull(),
    maxSize: integer("max_size").notNull(),
    /** How many have joined. */
    joined: integer("joined").notNull(),
    /** How many were merged. */
    size: integer("size").notNull().default(0),
    /** LEADING: the notification that went at once and opened it. */
    leaderId: uuid("leader_id"),
    /** Its turn under a limit, and the Reason of that; null: it has none. How often the limits have had it wait. */
    bookedAt: instant("booked_at"),
    bookedFor: smallint("booked_for"),
    attempts: smallint("attempts").notNull().default(0),
    /** What became of it. */
    notificationId: uuid("notification_id"),
    endedAt: instant("ended_at"),
  },
  (t) => [
    primaryKey({ columns: [t.tenantId, t.id] }),
    // One that can be joined per user and key: who finds none opens it, and whoever comes at the same time joins that.
    uniqueIndex("batches_open").on(t.tenantId, t.userId, t.key).where(sql`state = 1`),
    index("batches_flush").on(t.flushAt).where(sql`state in (1, 2)`),
    index("batches_user").on(t.userId, t.tenantId, t.id),
    // Of a tenant, in lists that ask for some of them only.
    index("batches_type").on(t.tenantId, t.type, t.id),
    index("batches_kind").on(t.tenantId, t.kind, t.id),
    index("batches_state").on(t.tenantId, t.state, t.id),
    index("batches_ended").on(t.endedAt).where(sql`ended_at is not null`),
  ],
);
