import { sql } from "drizzle-orm";
import { bigint, index, jsonb, pgTable, primaryKey, smallint, text, uniqueIndex, uuid } from "drizzle-orm/pg-core";
import { bytea, instant } from "./columns.ts";

export const tenants = pgTable("tenants", {
  id: uuid("id").primaryKey(),
  displayName: text("display_name").notNull(),
  state: smallint("state").notNull(),
  createdAt: instant("created_at").notNull(),
});

export const apiKeys = pgTable(
  "api_keys",
  {
    tenantId: uuid("tenant_id").notNull(),
    id: uuid("id").notNull(),
    displayName: text("display_name").notNull(),
    /** The public part of the secret: looked up before the tenant is known. */
    prefix: text("prefix").notNull(),
    /** SHA-256: the secret is 256 random bits, so a slow hash would add nothing. */
    secretHash: bytea("secret_hash").notNull(),
    /** After a rotation: the old secret and until when it works. */
    previousPrefix: text("previous_prefix"),
    previousHash: bytea("previous_hash"),
    previousUntil: instant("previous_until"),
    scopes: smallint("scopes").array().notNull(),
    createdAt: instant("created_at").notNull(),
    expiresAt: instant("expires_at"),
    revokedAt: instant("revoked_at"),
  },
  (t) => [
    primaryKey({ columns: [t.tenantId, t.id] }),
    uniqueIndex("api_keys_prefix").on(t.prefix),
    index("api_keys_previous_prefix").on(t.previousPrefix).where(sql`previous_prefix is not null`),
  ],
);

export const tokenIssuers = pgTable(
  "token_issuers",
  {
    tenantId: uuid("tenant_id").notNull(),
    id: uuid("id").notNull(),
    issuer: text("issuer").notNull(),
    audience: text("audience").notNull(),
    algorithm: smallint("algorithm").notNull(),
    /** HS256: sealed under the master key. */
    sealedSecret: bytea("sealed_secret"),
    publicKeyPem: text("public_key_pem"),
    jwksUrl: text("jwks_url"),
    createdAt: instant("created_at").notNull(),
  },
  (t) => [
    primaryKey({ columns: [t.tenantId, t.id] }),
    // A token names its issuer and audience before its tenant is known, so the pair belongs to one tenant.
    uniqueIndex("token_issuers_issuer_audience").on(t.issuer, t.audience),
  ],
);

/** Tokens of the user issued before `not_before` are refused. */
export const tokenRevocations = pgTable(
  "token_revocations",
  {
    tenantId: uuid("tenant_id").notNull(),
    userId: text("user_id").notNull(),
    notBefore: instant("not_before").notNull(),
  },
  (t) => [primaryKey({ columns: [t.tenantId, t.userId] }), index("token_revocations_recent").on(t.notBefore)],
);

/** Partitioned by month of id. */
export const auditEntries = pgTable(
  "audit_entries",
  {
    tenantId: uuid("tenant_id").notNull(),
    id: uuid("id").notNull(),
    actor: text("actor").notNull(),
    action: text("action").notNull(),
    target: text("target").notNull(),
    reason: text("reason").notNull().default(""),
    /** What changed, as an array of FieldChange; null: not told. */
    changes: jsonb("changes"),
  },
  (t) => [primaryKey({ columns: [t.tenantId, t.id] })],
);

/** How often notifications reached a status, by hour: kept in the transaction that changes the status. */
export const counters = pgTable(
  "counters",
  {
    tenantId: uuid("tenant_id").notNull(),
    hour: instant("hour").notNull(),
    type: text("type").notNull(),
    channel: smallint("channel").notNull(),
    status: smallint("status").notNull(),
    /** Writers use different slots so that they do not wait for each other's row lock; readers add them up. */
    slot: smallint("slot").notNull(),
    count: bigint("count", { mode: "number" }).notNull(),
  },
  (t) => [primaryKey({ columns: [t.tenantId, t.hour, t.type, t.channel, t.status, t.slot] })],
);
