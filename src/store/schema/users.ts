import { sql } from "drizzle-orm";
import {
  bigint,
  boolean,
  doublePrecision,
  index,
  integer,
  jsonb,
  pgTable,
  primaryKey,
  smallint,
  text,
  uuid,
} from "drizzle-orm/pg-core";
import { DeliveryMode } from "#gen/posthorn/v1/type_service_pb.ts";
import { bytea, instant } from "./columns.ts";

export const users = pgTable(
  "users",
  {
    tenantId: uuid("tenant_id").notNull(),
    id: text("id").notNull(),
    displayName: text("display_name").notNull().default(""),
    email: text("email").notNull().default(""),
    phone: text("phone").notNull().default(""),
    locale: text("locale").notNull().default(""),
    timeZone: text("time_zone").notNull().default(""),
    /** The user's roles; `user_roles` holds the same, keyed for fan-out, and changes with it. */
    roles: text("roles").array().notNull(),
    attributes: jsonb("attributes"),
    createdAt: instant("created_at").notNull(),
    updatedAt: instant("updated_at").notNull(),
  },
  (t) => [primaryKey({ columns: [t.tenantId, t.id] })],
);

export const userRoles = pgTable(
  "user_roles",
  {
    tenantId: uuid("tenant_id").notNull(),
    role: text("role").notNull(),
    userId: text("user_id").notNull(),
  },
  (t) => [primaryKey({ columns: [t.tenantId, t.role, t.userId] })],
);

export const topics = pgTable(
  "topics",
  {
    tenantId: uuid("tenant_id").notNull(),
    key: text("key").notNull(),
    description: text("description").notNull().default(""),
    memberCount: bigint("member_count", { mode: "number" }).notNull().default(0),
    createdAt: instant("created_at").notNull(),
    /** Users may join by themselves. */
    openToUsers: boolean("open_to_users").notNull().default(false),
  },
  (t) => [primaryKey({ columns: [t.tenantId, t.key] })],
);

export const topicMembers = pgTable(
  "topic_members",
  {
    tenantId: uuid("tenant_id").notNull(),
    topic: text("topic").notNull(),
    userId: text("user_id").notNull(),
  },
  (t) => [
    primaryKey({ columns: [t.tenantId, t.topic, t.userId] }),
    index("topic_members_user").on(t.tenantId, t.userId, t.topic),
  ],
);

export const types = pgTable(
  "types",
  {
    tenantId: uuid("tenant_id").notNull(),
    key: text("key").notNull(),
    displayName: text("display_name").notNull().default(""),
    description: text("description").notNull().default(""),
    category: text("category").notNull(),
    defaultPriority: smallint("default_priority").notNull(),
    defaultChannels: smallint("default_channels").array().notNull(),
    defaultTtlMs: bigint("default_ttl_ms", { mode: "number" }),
    optIn: boolean("opt_in").notNull().default(false),
    /** How long before a deadline of the type its user is reminded; null: the platform's default. */
    reminderOffsetsMs: bigint("reminder_offsets_ms", { mode: "number" }).array(),
    /** How long its notifications may wait for a good hour; null: not at all. */
    timingMaxWaitMs: bigint("timing_max_wait_ms", { mode: "number" }),
    /** Encoded posthorn.v1.BatchRule and BatchWording; null: never batched, nothing said. */
    batching: bytea("batching"),
    batchWording: bytea("batch_wording"),
    digestRule: smallint("digest_rule").notNull().default(0),
    /** 1 to 5: how much it is worth to its recipient, and how much is lost if it comes later. */
    value: smallint("value").notNull().default(3),
    urgency: smallint("urgency").notNull().default(3),
    /** Those that arrive close together form a group in the inbox. */
    group: boolean("group_similar").notNull().default(false),
    /** Encoded posthorn.v1.Escalation; null: none. */
    escalation: bytea("escalation"),
    /** The current version of its payload contract (`payload_contracts`), and its message; null: it has none. */
    payloadId: uuid("payload_id"),
    payloadVersion: integer("payload_version"),
    payloadMessage: text("payload_message"),
    /** Encoded posthorn.v1.PayloadWording; null: every Send needs a title. */
    wording: bytea("wording"),
    /** Encoded posthorn.v1.TypeDeprecation; null: it is not deprecated. */
    deprecation: bytea("deprecation"),
    /** The number of its DeliveryMode. */
    deliveryMode: smallint("delivery_mode").notNull().default(DeliveryMode.AT_LEAST_ONCE),
    revision: integer("revision").notNull(),
    createdAt: instant("created_at").notNull(),
    updatedAt: instant("updated_at").notNull(),
  },
  (t) => [primaryKey({ columns: [t.tenantId, t.key] })],
);

/** Types as they were: the newest revisions of each. */
export const typeRevisions = pgTable(
  "type_revisions",
  {
    tenantId: uuid("tenant_id").notNull(),
    key: text("key").notNull(),
    revision: integer("revision").notNull(),
    /** Encoded posthorn.v1.NotificationType. */
    type: bytea("type").notNull(),
    actor: text("actor").notNull(),
    /** Against the revision before, as FieldChange in protobuf JSON. */
    changes: jsonb("changes").notNull(),
  },
  (t) => [primaryKey({ columns: [t.tenantId, t.key, t.revision] })],
);

/** What a user has set, as protobuf JSON of posthorn.v1.Preferences. */
export const preferences = pgTable(
  "preferences",
  {
    tenantId: uuid("tenant_id").notNull(),
    userId: text("user_id").notNull(),
    document: jsonb("document").notNull(),
    revision: integer("revision").notNull(),
    updatedAt: instant("updated_at").notNull(),
  },
  (t) => [primaryKey({ columns: [t.tenantId, t.userId] })],
);

/** What users, and with the empty user id the tenant, had set before: the newest revisions of each, as `preferences` has them. */
export const preferenceRevisions = pgTable(
  "preference_revisions",
  {
    tenantId: uuid("tenant_id").notNull(),
    userId: text("user_id").notNull(),
    revision: integer("revision").notNull(),
    document: jsonb("document").notNull(),
    /** When it was set, and when the next took its place. */
    updatedAt: instant("updated_at").notNull(),
    replacedAt: instant("replaced_at").notNull(),
  },
  (t) => [
    primaryKey({ columns: [t.tenantId, t.userId, t.revision] }),
    index("preference_revisions_oldest").on(t.replacedAt),
  ],
);

/**
 * Changes of rules that some of what waits has not been decided by yet. A row goes away when all has; until then it says
 * how far that has come: a status, and the last id of it.
 */
export const ruleChanges = pgTable(
  "rule_changes",
  {
    tenantId: uuid("tenant_id").notNull(),
    /** Empty: all users of the tenant. */
    userId: text("user_id").notNull(),
    /** Empty: all types. */
    type: text("type").notNull(),
    status: smallint("status").notNull(),
    after: uuid("after").notNull(),
    changedAt: instant("changed_at").notNull(),
  },
  (t) => [primaryKey({ columns: [t.tenantId, t.userId, t.type] }), index("rule_changes_oldest").on(t.changedAt)],
);

/** The tenant's defaults, in the same form. */
export const defaultPreferences = pgTable("default_preferences", {
  tenantId: uuid("tenant_id").primaryKey(),
  document: jsonb("document").notNull(),
  revision: integer("revision").notNull(),
  updatedAt: instant("updated_at").notNull(),
});

/** What users are subscribed to, and their filters. Who is subscribed to a topic is one of its `topic_members`. */
export const subscriptions = pgTable(
  "subscriptions",
  {
    tenantId: uuid("tenant_id").notNull(),
    userId: text("user_id").notNull(),
    id: uuid("id").notNull(),
    /** The number of the target's field in posthorn.v1.Subscription: type, topic or category. */
    kind: smallint("kind").notNull(),
    key: text("key").notNull(),
    /** CEL; empty: everything. */
    filter: text("filter").notNull(),
    createdAt: instant("created_at").notNull(),
    updatedAt: instant("updated_at").notNull(),
  },
  (t) => [
    primaryKey({ columns: [t.tenantId, t.userId, t.id] }),
    // Whoever leaves a topic, or is taken out of it, loses the subscription.
    index("subscriptions_topic").on(t.tenantId, t.key, t.userId).where(sql`kind = 3`),
  ],
);

/** In which hours of their own clock users look: see learning/looks.ts. */
export const looks = pgTable(
  "looks",
  {
    tenantId: uuid("tenant_id").notNull(),
    userId: text("user_id").notNull(),
    /** 24 of Monday to Friday, then 24 of the weekend; what a look adds doubles with every half-life since `since`. */
    weights: doublePrecision("weights").array().notNull(),
    /** The first hour they looked in, and the last: its beginning. */
    since: instant("since").notNull(),
    lastHour: instant("last_hour").notNull(),
  },
  (t) => [primaryKey({ columns: [t.tenantId, t.userId] }), index("looks_last").on(t.lastHour)],
);
