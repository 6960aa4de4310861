CREATE TABLE "api_keys" (
	"tenant_id" uuid NOT NULL,
	"id" uuid NOT NULL,
	"display_name" text NOT NULL,
	"prefix" text NOT NULL,
	"secret_hash" bytea NOT NULL,
	"previous_prefix" text,
	"previous_hash" bytea,
	"previous_until" timestamp (3) with time zone,
	"scopes" smallint[] NOT NULL,
	"created_at" timestamp (3) with time zone NOT NULL,
	"expires_at" timestamp (3) with time zone,
	"revoked_at" timestamp (3) with time zone,
	CONSTRAINT "api_keys_tenant_id_id_pk" PRIMARY KEY("tenant_id","id")
);
--> statement-breakpoint
CREATE TABLE "audit_entries" (
	"tenant_id" uuid NOT NULL,
	"id" uuid NOT NULL,
	"actor" text NOT NULL,
	"action" text NOT NULL,
	"target" text NOT NULL,
	"reason" text DEFAULT '' NOT NULL,
	CONSTRAINT "audit_entries_tenant_id_id_pk" PRIMARY KEY("tenant_id","id")
) PARTITION BY RANGE ("id");
--> statement-breakpoint
CREATE TABLE "counters" (
	"tenant_id" uuid NOT NULL,
	"hour" timestamp (3) with time zone NOT NULL,
	"type" text NOT NULL,
	"channel" smallint NOT NULL,
	"status" smallint NOT NULL,
	"slot" smallint NOT NULL,
	"count" bigint NOT NULL,
	CONSTRAINT "counters_tenant_id_hour_type_channel_status_slot_pk" PRIMARY KEY("tenant_id","hour","type","channel","status","slot")
) WITH (fillfactor = 50);
--> statement-breakpoint
CREATE TABLE "tenants" (
	"id" uuid PRIMARY KEY NOT NULL,
	"display_name" text NOT NULL,
	"state" smallint NOT NULL,
	"created_at" timestamp (3) with time zone NOT NULL
);
--> statement-breakpoint
CREATE TABLE "token_issuers" (
	"tenant_id" uuid NOT NULL,
	"id" uuid NOT NULL,
	"issuer" text NOT NULL,
	"audience" text NOT NULL,
	"algorithm" smallint NOT NULL,
	"sealed_secret" bytea,
	"public_key_pem" text,
	"jwks_url" text,
	"created_at" timestamp (3) with time zone NOT NULL,
	CONSTRAINT "token_issuers_tenant_id_id_pk" PRIMARY KEY("tenant_id","id")
);
--> statement-breakpoint
CREATE TABLE "token_revocations" (
	"tenant_id" uuid NOT NULL,
	"user_id" text NOT NULL,
	"not_before" timestamp (3) with time zone NOT NULL,
	CONSTRAINT "token_revocations_tenant_id_user_id_pk" PRIMARY KEY("tenant_id","user_id")
);
--> statement-breakpoint
CREATE TABLE "default_preferences" (
	"tenant_id" uuid PRIMARY KEY NOT NULL,
	"document" jsonb NOT NULL,
	"revision" integer NOT NULL,
	"updated_at" timestamp (3) with time zone NOT NULL
);
--> statement-breakpoint
CREATE TABLE "preferences" (
	"tenant_id" uuid NOT NULL,
	"user_id" text NOT NULL,
	"document" jsonb NOT NULL,
	"revision" integer NOT NULL,
	"updated_at" timestamp (3) with time zone NOT NULL,
	CONSTRAINT "preferences_tenant_id_user_id_pk" PRIMARY KEY("tenant_id","user_id")
);
--> statement-breakpoint
CREATE TABLE "topic_members" (
	"tenant_id" uuid NOT NULL,
	"topic" text NOT NULL,
	"user_id" text NOT NULL,
	CONSTRAINT "topic_members_tenant_id_topic_user_id_pk" PRIMARY KEY("tenant_id","topic","user_id")
);
--> statement-breakpoint
CREATE TABLE "topics" (
	"tenant_id" uuid NOT NULL,
	"key" text NOT NULL,
	"description" text DEFAULT '' NOT NULL,
	"member_count" bigint DEFAULT 0 NOT NULL,
	"created_at" timestamp (3) with time zone NOT NULL,
	CONSTRAINT "topics_tenant_id_key_pk" PRIMARY KEY("tenant_id","key")
);
--> statement-breakpoint
CREATE TABLE "types" (
	"tenant_id" uuid NOT NULL,
	"key" text NOT NULL,
	"display_name" text DEFAULT '' NOT NULL,
	"description" text DEFAULT '' NOT NULL,
	"category" text NOT NULL,
	"default_priority" smallint NOT NULL,
	"default_channels" smallint[] NOT NULL,
	"default_ttl_ms" bigint,
	"opt_in" boolean DEFAULT false NOT NULL,
	"revision" integer NOT NULL,
	"created_at" timestamp (3) with time zone NOT NULL,
	"updated_at" timestamp (3) with time zone NOT NULL,
	CONSTRAINT "types_tenant_id_key_pk" PRIMARY KEY("tenant_id","key")
);
--> statement-breakpoint
CREATE TABLE "user_roles" (
	"tenant_id" uuid NOT NULL,
	"role" text NOT NULL,
	"user_id" text NOT NULL,
	CONSTRAINT "user_roles_tenant_id_role_user_id_pk" PRIMARY KEY("tenant_id","role","user_id")
);
--> statement-breakpoint
CREATE TABLE "users" (
	"tenant_id" uuid NOT NULL,
	"id" text NOT NULL,
	"display_name" text DEFAULT '' NOT NULL,
	"email" text DEFAULT '' NOT NULL,
	"phone" text DEFAULT '' NOT NULL,
	"locale" text DEFAULT '' NOT NULL,
	"time_zone" text DEFAULT '' NOT NULL,
	"roles" text[] NOT NULL,
	"attributes" jsonb,
	"created_at" timestamp (3) with time zone NOT NULL,
	"updated_at" timestamp (3) with time zone NOT NULL,
	CONSTRAINT "users_tenant_id_id_pk" PRIMARY KEY("tenant_id","id")
);
--> statement-breakpoint
CREATE TABLE "dedup_keys" (
	"tenant_id" uuid NOT NULL,
	"user_id" text NOT NULL,
	"key" text NOT NULL,
	"notification_id" uuid NOT NULL,
	"expires_at" timestamp (3) with time zone NOT NULL,
	CONSTRAINT "dedup_keys_tenant_id_user_id_key_pk" PRIMARY KEY("tenant_id","user_id","key")
);
--> statement-breakpoint
CREATE TABLE "fanouts" (
	"tenant_id" uuid NOT NULL,
	"id" uuid NOT NULL,
	"state" smallint NOT NULL,
	"priority" smallint NOT NULL,
	"request" bytea NOT NULL,
	"content" bytea NOT NULL,
	"actor" text NOT NULL,
	"cursor" jsonb NOT NULL,
	"created" bigint DEFAULT 0 NOT NULL,
	"deduplicated" bigint DEFAULT 0 NOT NULL,
	"created_at" timestamp (3) with time zone NOT NULL,
	"ended_at" timestamp (3) with time zone,
	"lease_until" timestamp (3) with time zone,
	CONSTRAINT "fanouts_tenant_id_id_pk" PRIMARY KEY("tenant_id","id")
);
--> statement-breakpoint
CREATE TABLE "idempotency_keys" (
	"tenant_id" uuid NOT NULL,
	"key" text NOT NULL,
	"request_hash" bytea NOT NULL,
	"response" bytea NOT NULL,
	"expires_at" timestamp (3) with time zone NOT NULL,
	CONSTRAINT "idempotency_keys_tenant_id_key_pk" PRIMARY KEY("tenant_id","key")
);
--> statement-breakpoint
CREATE TABLE "inbox" (
	"tenant_id" uuid NOT NULL,
	"user_id" text NOT NULL,
	"seq" bigint NOT NULL,
	"arrived_at" timestamp (3) with time zone NOT NULL,
	"notification_id" uuid NOT NULL,
	"type" text NOT NULL,
	"category" text NOT NULL,
	"priority" smallint NOT NULL,
	"tags" text[],
	"read_at" timestamp (3) with time zone,
	"archived_at" timestamp (3) with time zone,
	"snoozed_until" timestamp (3) with time zone,
	"expires_at" timestamp (3) with time zone,
	CONSTRAINT "inbox_tenant_id_user_id_seq_arrived_at_pk" PRIMARY KEY("tenant_id","user_id","seq","arrived_at")
) PARTITION BY RANGE ("arrived_at");
--> statement-breakpoint
CREATE TABLE "inbox_heads" (
	"tenant_id" uuid NOT NULL,
	"user_id" text NOT NULL,
	"epoch" integer NOT NULL,
	"seq" bigint NOT NULL,
	"trimmed_seq" bigint DEFAULT 0 NOT NULL,
	"seen_seq" bigint DEFAULT 0 NOT NULL,
	"unread" integer NOT NULL,
	"total" integer NOT NULL,
	"archived" integer DEFAULT 0 NOT NULL,
	"snoozed" integer DEFAULT 0 NOT NULL,
	CONSTRAINT "inbox_heads_tenant_id_user_id_pk" PRIMARY KEY("tenant_id","user_id")
) WITH (fillfactor = 70);
--> statement-breakpoint
CREATE TABLE "notifications" (
	"tenant_id" uuid NOT NULL,
	"id" uuid NOT NULL,
	"user_id" text NOT NULL,
	"type" text NOT NULL,
	"category" text NOT NULL,
	"priority" smallint NOT NULL,
	"status" smallint NOT NULL,
	"reason" smallint DEFAULT 0 NOT NULL,
	"channels" integer NOT NULL,
	"content" bytea,
	"tags" text[],
	"bypass_limits" boolean DEFAULT false NOT NULL,
	"attempts" smallint DEFAULT 0 NOT NULL,
	"scheduled_at" timestamp (3) with time zone,
	"expires_at" timestamp (3) with time zone,
	"due_at" timestamp (3) with time zone,
	"queued_at" timestamp (3) with time zone,
	"delivered_at" timestamp (3) with time zone,
	"updated_at" timestamp (3) with time zone NOT NULL,
	"inbox_seq" bigint,
	"dedup_key" text,
	"collapse_key" text,
	"sender_id" text,
	"fanout_id" uuid,
	CONSTRAINT "notifications_tenant_id_id_pk" PRIMARY KEY("tenant_id","id")
) PARTITION BY RANGE ("id");
--> statement-breakpoint
CREATE TABLE "timeline" (
	"tenant_id" uuid NOT NULL,
	"notification_id" uuid NOT NULL,
	"at" timestamp (3) with time zone NOT NULL,
	"status" smallint NOT NULL,
	"channel" smallint NOT NULL,
	"reason" smallint NOT NULL,
	"actor" text,
	"detail" bytea
) PARTITION BY RANGE ("notification_id");
--> statement-breakpoint
CREATE UNIQUE INDEX "api_keys_prefix" ON "api_keys" USING btree ("prefix");--> statement-breakpoint
CREATE INDEX "api_keys_previous_prefix" ON "api_keys" USING btree ("previous_prefix") WHERE previous_prefix is not null;--> statement-breakpoint
CREATE UNIQUE INDEX "token_issuers_issuer_audience" ON "token_issuers" USING btree ("issuer","audience");--> statement-breakpoint
CREATE INDEX "topic_members_user" ON "topic_members" USING btree ("tenant_id","user_id","topic");--> statement-breakpoint
CREATE INDEX "dedup_keys_expiry" ON "dedup_keys" USING btree ("expires_at");--> statement-breakpoint
CREATE INDEX "fanouts_ended" ON "fanouts" USING btree ("ended_at") WHERE ended_at is not null;--> statement-breakpoint
CREATE INDEX "fanouts_lease" ON "fanouts" USING btree ("lease_until") WHERE lease_until is not null;--> statement-breakpoint
CREATE INDEX "idempotency_keys_expiry" ON "idempotency_keys" USING btree ("expires_at");--> statement-breakpoint
CREATE INDEX "inbox_unread" ON "inbox" USING btree ("tenant_id","user_id","seq") WHERE read_at is null and archived_at is null and snoozed_until is null;--> statement-breakpoint
CREATE INDEX "inbox_put_away" ON "inbox" USING btree ("tenant_id","user_id","seq") WHERE archived_at is not null or snoozed_until is not null;--> statement-breakpoint
CREATE INDEX "inbox_expiry" ON "inbox" USING btree ("expires_at") WHERE expires_at is not null;--> statement-breakpoint
CREATE INDEX "inbox_snoozed" ON "inbox" USING btree ("snoozed_until") WHERE snoozed_until is not null;--> statement-breakpoint
CREATE INDEX "notifications_user" ON "notifications" USING btree ("user_id","tenant_id","id");--> statement-breakpoint
CREATE INDEX "notifications_waiting" ON "notifications" USING btree ("priority","tenant_id","id") WHERE status = 1;--> statement-breakpoint
CREATE INDEX "notifications_due" ON "notifications" USING btree ("due_at") WHERE due_at is not null;--> statement-breakpoint
CREATE INDEX "notifications_exceptions" ON "notifications" USING btree ("tenant_id","status","id") WHERE status not in (1, 7, 8);--> statement-breakpoint
CREATE INDEX "notifications_collapse" ON "notifications" USING btree ("tenant_id","user_id","collapse_key") WHERE collapse_key is not null and status in (1, 2, 3);--> statement-breakpoint
CREATE INDEX "notifications_waiting_user" ON "notifications" USING btree ("tenant_id","user_id") WHERE status in (2, 3);--> statement-breakpoint
CREATE INDEX "notifications_fanout" ON "notifications" USING btree ("tenant_id","fanout_id","id") WHERE fanout_id is not null;--> statement-breakpoint
CREATE INDEX "timeline_notification" ON "timeline" USING btree ("tenant_id","notification_id");
--> statement-breakpoint
-- Two roles stand before the tables. posthorn_tenant sees only the rows of the tenant named by the transaction's setting
-- posthorn.tenant, and none without it; posthorn_system sees all tenants and serves the scheduler, the reconciler and the
-- look-up of credentials. Neither owns a table, so neither can pass the policies.
DO $$
DECLARE name text;
BEGIN
  FOREACH name IN ARRAY ARRAY['posthorn_tenant', 'posthorn_system'] LOOP
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = name) THEN
      BEGIN
        EXECUTE format('CREATE ROLE %I NOLOGIN', name);
      EXCEPTION WHEN duplicate_object OR unique_violation THEN
        NULL; -- the migration of another database in this cluster was faster
      END;
    END IF;
    IF NOT pg_has_role(current_user, name, 'MEMBER') THEN
      EXECUTE format('GRANT %I TO %I', name, current_user);
    END IF;
    EXECUTE format('GRANT USAGE ON SCHEMA %I TO %I', current_schema(), name);
  END LOOP;
END $$;
--> statement-breakpoint
DO $$
DECLARE name text;
DECLARE key text;
BEGIN
  FOREACH name IN ARRAY ARRAY['api_keys', 'audit_entries', 'counters', 'tenants', 'token_issuers', 'token_revocations', 'default_preferences', 'preferences', 'topic_members', 'topics', 'types', 'user_roles', 'users', 'dedup_keys', 'fanouts', 'idempotency_keys', 'inbox', 'inbox_heads', 'notifications', 'timeline'] LOOP
    key := CASE WHEN name = 'tenants' THEN 'id' ELSE 'tenant_id' END;
    EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE ON %I TO posthorn_tenant, posthorn_system', name);
    EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', name);
    EXECUTE format('CREATE POLICY every_tenant ON %I TO posthorn_system USING (true) WITH CHECK (true)', name);
    EXECUTE format(
      'CREATE POLICY one_tenant ON %1$I TO posthorn_tenant'
      || ' USING (%2$I = (SELECT nullif(current_setting(''posthorn.tenant'', true), '''')::uuid))'
      || ' WITH CHECK (%2$I = (SELECT nullif(current_setting(''posthorn.tenant'', true), '''')::uuid))',
      name, key
    );
  END LOOP;
END $$;
