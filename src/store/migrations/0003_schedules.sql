CREATE TABLE "deadlines" (
	"tenant_id" uuid NOT NULL,
	"user_id" text NOT NULL,
	"key" text NOT NULL,
	"type" text NOT NULL,
	"at" timestamp (3) with time zone NOT NULL,
	"content" bytea NOT NULL,
	"priority" smallint NOT NULL,
	"offsets_ms" bigint[],
	"reminders" jsonb NOT NULL,
	"revision" integer NOT NULL,
	"created_at" timestamp (3) with time zone NOT NULL,
	"updated_at" timestamp (3) with time zone NOT NULL,
	CONSTRAINT "deadlines_tenant_id_user_id_key_pk" PRIMARY KEY("tenant_id","user_id","key")
);
--> statement-breakpoint
CREATE TABLE "schedules" (
	"tenant_id" uuid NOT NULL,
	"key" text NOT NULL,
	"request" bytea NOT NULL,
	"user_ids" text[] NOT NULL,
	"users_only" boolean NOT NULL,
	"rule" text NOT NULL,
	"start_time" text NOT NULL,
	"time_zone" text NOT NULL,
	"state" smallint NOT NULL,
	"final_time" text,
	"occurrence" text,
	"fires_at" timestamp (3) with time zone,
	"not_before" timestamp (3) with time zone NOT NULL,
	"last_occurrence" text,
	"fired" bigint DEFAULT 0 NOT NULL,
	"missed" bigint DEFAULT 0 NOT NULL,
	"revision" integer NOT NULL,
	"created_at" timestamp (3) with time zone NOT NULL,
	"updated_at" timestamp (3) with time zone NOT NULL,
	"ended_at" timestamp (3) with time zone,
	CONSTRAINT "schedules_tenant_id_key_pk" PRIMARY KEY("tenant_id","key")
);
--> statement-breakpoint
DROP INDEX "notifications_due";--> statement-breakpoint
ALTER TABLE "types" ADD COLUMN "reminder_offsets_ms" bigint[];--> statement-breakpoint
ALTER TABLE "fanouts" ADD COLUMN "skip_before" timestamp (3) with time zone;--> statement-breakpoint
CREATE INDEX "deadlines_at" ON "deadlines" USING btree ("at");--> statement-breakpoint
CREATE INDEX "schedules_due" ON "schedules" USING btree ("fires_at") WHERE fires_at is not null;--> statement-breakpoint
CREATE INDEX "schedules_ended" ON "schedules" USING btree ("ended_at") WHERE ended_at is not null;--> statement-breakpoint
CREATE INDEX "notifications_due" ON "notifications" USING btree ("priority","due_at") WHERE due_at is not null;
--> statement-breakpoint
DO $$
DECLARE name text;
BEGIN
  FOREACH name IN ARRAY ARRAY['schedules', 'deadlines'] LOOP
    EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE ON %I TO posthorn_tenant, posthorn_system', name);
    EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', name);
    EXECUTE format('CREATE POLICY every_tenant ON %I TO posthorn_system USING (true) WITH CHECK (true)', name);
    EXECUTE format(
      'CREATE POLICY one_tenant ON %1$I TO posthorn_tenant'
      || ' USING (tenant_id = (SELECT nullif(current_setting(''posthorn.tenant'', true), '''')::uuid))'
      || ' WITH CHECK (tenant_id = (SELECT nullif(current_setting(''posthorn.tenant'', true), '''')::uuid))',
      name
    );
  END LOOP;
END $$;
