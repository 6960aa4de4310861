import { sql } from "drizzle-orm";
import { boolean, index, jsonb, pgTable, primaryKey, smallint, text, uuid } from "drizzle-orm/pg-core";
import { Priority } from "#gen/posthorn/v1/notification_pb.ts";
import { instant } from "./columns.ts";

/** What goes on until a notification is answered: see escalation/state.ts, whose numbers the states are. */
export const escalations = pgTable(
  "escalations",
  {
    tenantId: uuid("tenant_id").notNull(),
    notificationId: uuid("notification_id").notNull(),
    userId: text("user_id").notNull(),
    /** `{ channel, afterMs }` of each, in order. */
    steps: jsonb("steps").notNull(),
    confirmationRequired: boolean("confirmation_required").notNull(),
    state: smallint("state").notNull(),
    /** How many steps have had their turn. */
    taken: smallint("taken").notNull(),
    /** When the next is due; later than `turn_at` while the recipient's rules hold it. Both null once it has ended. */
    dueAt: instant("due_at"),
    turnAt: instant("turn_at"),
    endedAt: instant("ended_at"),
    /** The recorded trace that goes on in its steps. */
    trace: text("trace"),
  },
  (t) => [
    primaryKey({ columns: [t.tenantId, t.notificationId] }),
    index("escalations_due").on(t.dueAt).where(sql`due_at is not null`),
    // Those that go on: who looks for a tenant's reads none of the many that have ended.
    index("escalations_open").on(t.tenantId, t.notificationId).where(sql`due_at is not null`),
    index("escalations_open_user").on(t.userId, t.tenantId).where(sql`due_at is not null`),
    index("escalations_user").on(t.userId, t.tenantId),
    index("escalations_ended").on(t.endedAt).where(sql`ended_at is not null`),
  ],
);

/** What outside channels are to take; a row goes away when its channel has taken it, refused it or failed too often. */
export const handOvers = pgTable(
  "hand_overs",
  {
    tenantId: uuid("tenant_id").notNull(),
    notificationId: uuid("notification_id").notNull(),
    /** The number of the escalation's step; 0: of the decision. */
    step: smallint("step").notNull(),
    channel: smallint("channel").notNull(),
    userId: text("user_id").notNull(),
    /** Of the notification. The default is for servers that know none. */
    priority: smallint("priority").notNull().default(Priority.NORMAL),
    /** How often it was claimed: whoever has claimed it since is in charge of it. */
    attempts: smallint("attempts").notNull(),
    /** When it may be claimed. */
    dueAt: instant("due_at").notNull(),
    /** The reason for which it waits, if it is no failure of its channel; 0: none. Negative while somebody has claimed it. */
    heldBy: smallint("held_by").notNull().default(0),
    /** The recorded trace that goes on with it. */
    trace: text("trace"),
    /** Nobody may be handed it again who may have taken it. */
    atMostOnce: boolean("at_most_once").notNull().default(false),
    /** Its channel may have taken it: it has been, or is about to be, handed over, and has not said no. */
    given: boolean("given").notNull().default(false),
    /** Somebody has it in hand, or had when they died; until it is noted what came of it, or somebody claims it anew. */
    claimed: boolean("claimed").notNull().default(false),
    /** Whoever cancelled it while it was claimed: it is not tried again. */
    cancelledBy: text("cancelled_by"),
    /** Why: CANCELLED, which null means too, or SUPERSEDED by a newer one. */
    cancelReason: smallint("cancel_reason"),
  },
  (t) => [
    primaryKey({ columns: [t.tenantId, t.notificationId, t.step, t.channel] }),
    index("hand_overs_due").on(t.channel, t.priority, t.dueAt),
    index("hand_overs_user").on(t.userId, t.tenantId),
  ],
);
