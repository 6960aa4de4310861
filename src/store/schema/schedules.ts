import { sql } from "drizzle-orm";
import { bigint, boolean, index, integer, jsonb, pgTable, primaryKey, smallint, text, uuid } from "drizzle-orm/pg-core";
import { bytea, instant } from "./columns.ts";

/** A Send that recurs. The row is its own cursor: an occurrence is stored in the transaction that moves `occurrence` on. */
export const schedules = pgTable(
  "schedules",
  {
    tenantId: uuid("tenant_id").notNull(),
    key: text("key").notNull(),
    /** Encoded posthorn.v1.SendRequest, without its user ids. */
    request: bytea("request").notNull(),
    /** Apart from the request, so that a user can be erased. */
    userIds: text("user_ids").array().notNull(),
    /** The request names no topic, role or everyone. */
    usersOnly: boolean("users_only").notNull(),
    /** Of the request. */
    type: text("type").notNull(),
    /** Of the request; 0: the type's. */
    priority: smallint("priority").notNull(),
    /** What that comes to, by which due schedules are looked for. Follows the type. */
    lane: smallint("lane").notNull(),
    rule: text("rule").notNull(),
    /** Wall-clock time of the first occurrence. */
    startTime: text("start_time").notNull(),
    /** "": each recipient's. */
    timeZone: text("time_zone").notNull(),
    state: smallint("state").notNull(),
    /** Wall-clock time of the last occurrence, where the rule has a COUNT. */
    finalTime: text("final_time"),
    /**
     * Wall-clock time of the next occurrence, and the instant at which it is stored. Null unless ACTIVE; the instant alone
     * is null while it is put aside, because the tenant is suspended.
     */
    occurrence: text("occurrence"),
    firesAt: instant("fires_at"),
    /** Whose time has come before gets nothing: when it was created, changed or resumed. */
    notBefore: instant("not_before").notNull(),
    /** The last one that was sent: none is sent again, nor one before it, when the schedule changes or goes on. */
    lastOccurrence: text("last_occurrence"),
    fired: bigint("fired", { mode: "number" }).notNull().default(0),
    missed: bigint("missed", { mode: "number" }).notNull().default(0),
    revision: integer("revision").notNull(),
    createdAt: instant("created_at").notNull(),
    updatedAt: instant("updated_at").notNull(),
    endedAt: instant("ended_at"),
  },
  (t) => [
    primaryKey({ columns: [t.tenantId, t.key] }),
    index("schedules_due").on(t.lane, t.firesAt, t.tenantId).where(sql`fires_at is not null`),
    index("schedules_due_of").on(t.tenantId, t.lane, t.firesAt).where(sql`fires_at is not null`),
    index("schedules_ended").on(t.endedAt).where(sql`ended_at is not null`),
  ],
);

/** A user's deadline, and the reminders stored for it. */
export const deadlines = pgTable(
  "deadlines",
  {
    tenantId: uuid("tenant_id").notNull(),
    userId: text("user_id").notNull(),
    key: text("key").notNull(),
    type: text("type").notNull(),
    at: instant("at").notNull(),
    /** Encoded posthorn.v1.Content. */
    content: bytea("content").notNull(),
    /** 0: the type's. */
    priority: smallint("priority").notNull(),
    /** As asked for; null: the type's or the platform's. */
    offsetsMs: bigint("offsets_ms", { mode: "number" }).array(),
    /** `{ offsetMs, dueAt, id }` of every reminder stored, by falling offset. */
    reminders: jsonb("reminders").notNull(),
    revision: integer("revision").notNull(),
    createdAt: instant("created_at").notNull(),
    updatedAt: instant("updated_at").notNull(),
  },
  (t) => [primaryKey({ columns: [t.tenantId, t.userId, t.key] }), index("deadlines_at").on(t.at)],
);
