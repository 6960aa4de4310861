CREATE TABLE "subscriptions" (
	"tenant_id" uuid NOT NULL,
	"user_id" text NOT NULL,
	"id" uuid NOT NULL,
	"kind" smallint NOT NULL,
	"key" text NOT NULL,
	"filter" text NOT NULL,
	"created_at" timestamp (3) with time zone NOT NULL,
	"updated_at" timestamp (3) with time zone NOT NULL,
	CONSTRAINT "subscriptions_tenant_id_user_id_id_pk" PRIMARY KEY("tenant_id","user_id","id")
);
--> statement-breakpoint
CREATE TABLE "inbox_groups" (
	"tenant_id" uuid NOT NULL,
	"user_id" text NOT NULL,
	"key" text NOT NULL,
	"group_seq" bigint NOT NULL,
	"size" integer NOT NULL,
	"opened_at" timestamp (3) with time zone NOT NULL,
	"previous_seq" bigint,
	"previous_size" integer NOT NULL,
	CONSTRAINT "inbox_groups_tenant_id_user_id_key_pk" PRIMARY KEY("tenant_id","user_id","key")
);
--> statement-breakpoint
ALTER TABLE "topics" ADD COLUMN "open_to_users" boolean DEFAULT false NOT NULL;--> statement-breakpoint
ALTER TABLE "types" ADD COLUMN "group_similar" boolean DEFAULT false NOT NULL;--> statement-breakpoint
ALTER TABLE "inbox" ADD COLUMN "group_seq" bigint;--> statement-breakpoint
ALTER TABLE "notifications" ADD COLUMN "group_key" text;--> statement-breakpoint
CREATE INDEX "subscriptions_topic" ON "subscriptions" USING btree ("tenant_id","key","user_id") WHERE kind = 3;--> statement-breakpoint
CREATE INDEX "inbox_groups_opened" ON "inbox_groups" USING btree ("opened_at");--> statement-breakpoint
CREATE INDEX "inbox_group" ON "inbox" USING btree ("tenant_id","user_id","group_seq","seq") WHERE group_seq is not null;
--> statement-breakpoint
-- As for the first tables: see 0000_foundation.sql.
DO $$
DECLARE name text;
BEGIN
  FOREACH name IN ARRAY ARRAY['subscriptions', 'inbox_groups'] LOOP
    EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE ON %I TO posthorn_tenant, posthorn_system', name);
    EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', name);
    EXECUTE format('CREATE POLICY every_tenant ON %I TO posthorn_system USING (true) WITH CHECK (true)', name);
    EXECUTE format(
      'CREATE POLICY one_tenant ON %I TO posthorn_tenant'
      || ' USING (tenant_id = (SELECT nullif(current_setting(''posthorn.tenant'', true), '''')::uuid))'
      || ' WITH CHECK (tenant_id = (SELECT nullif(current_setting(''posthorn.tenant'', true), '''')::uuid))',
      name
    );
  END LOOP;
END $$;
