CREATE TABLE "escalations" (
	"tenant_id" uuid NOT NULL,
	"notification_id" uuid NOT NULL,
	"user_id" text NOT NULL,
	"steps" jsonb NOT NULL,
	"confirmation_required" boolean NOT NULL,
	"state" smallint NOT NULL,
	"taken" smallint NOT NULL,
	"due_at" timestamp (3) with time zone,
	"turn_at" timestamp (3) with time zone,
	"ended_at" timestamp (3) with time zone,
	CONSTRAINT "escalations_tenant_id_notification_id_pk" PRIMARY KEY("tenant_id","notification_id")
);
--> statement-breakpoint
CREATE TABLE "hand_overs" (
	"tenant_id" uuid NOT NULL,
	"notification_id" uuid NOT NULL,
	"step" smallint NOT NULL,
	"channel" smallint NOT NULL,
	"user_id" text NOT NULL,
	"attempts" smallint NOT NULL,
	"due_at" timestamp (3) with time zone NOT NULL,
	CONSTRAINT "hand_overs_tenant_id_notification_id_step_channel_pk" PRIMARY KEY("tenant_id","notification_id","step","channel")
);
--> statement-breakpoint
ALTER TABLE "types" ADD COLUMN "escalation" "bytea";--> statement-breakpoint
ALTER TABLE "notifications" ADD COLUMN "escalation" "bytea";--> statement-breakpoint
ALTER TABLE "notifications" ADD COLUMN "confirmation_required" boolean;--> statement-breakpoint
ALTER TABLE "notifications" ADD COLUMN "confirmed_at" timestamp (3) with time zone;--> statement-breakpoint
CREATE INDEX "escalations_due" ON "escalations" USING btree ("due_at") WHERE due_at is not null;--> statement-breakpoint
CREATE INDEX "escalations_user" ON "escalations" USING btree ("user_id","tenant_id");--> statement-breakpoint
CREATE INDEX "escalations_ended" ON "escalations" USING btree ("ended_at") WHERE ended_at is not null;--> statement-breakpoint
CREATE INDEX "hand_overs_due" ON "hand_overs" USING btree ("due_at");--> statement-breakpoint
CREATE INDEX "hand_overs_user" ON "hand_overs" USING btree ("user_id","tenant_id");
--> statement-breakpoint
-- As for the first tables: see 0000_foundation.sql.
DO $$
DECLARE name text;
BEGIN
  FOREACH name IN ARRAY ARRAY['escalations', 'hand_overs'] LOOP
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
