CREATE TABLE "batches" (
	"tenant_id" uuid NOT NULL,
	"id" uuid NOT NULL,
	"user_id" text NOT NULL,
	"kind" smallint NOT NULL,
	"key" text NOT NULL,
	"type" text NOT NULL,
	"category" text NOT NULL,
	"priority" smallint NOT NULL,
	"state" smallint NOT NULL,
	"opened_at" timestamp (3) with time zone NOT NULL,
	"flush_at" timestamp (3) with time zone NOT NULL,
	"latest_flush_at" timestamp (3) with time zone NOT NULL,
	"max_size" integer NOT NULL,
	"joined" integer NOT NULL,
	"size" integer DEFAULT 0 NOT NULL,
	"leader_id" uuid,
	"notification_id" uuid,
	"ended_at" timestamp (3) with time zone,
	CONSTRAINT "batches_tenant_id_id_pk" PRIMARY KEY("tenant_id","id")
);
--> statement-breakpoint
DROP INDEX "notifications_collapse";--> statement-breakpoint
DROP INDEX "notifications_waiting_user";--> statement-breakpoint
ALTER TABLE "types" ADD COLUMN "batching" "bytea";--> statement-breakpoint
ALTER TABLE "types" ADD COLUMN "batch_wording" "bytea";--> statement-breakpoint
ALTER TABLE "types" ADD COLUMN "digest_rule" smallint DEFAULT 0 NOT NULL;--> statement-breakpoint
ALTER TABLE "notifications" ADD COLUMN "batch_id" uuid;--> statement-breakpoint
ALTER TABLE "notifications" ADD COLUMN "batch_role" smallint;--> statement-breakpoint
ALTER TABLE "notifications" ADD COLUMN "batched_at" timestamp (3) with time zone;--> statement-breakpoint
CREATE UNIQUE INDEX "batches_open" ON "batches" USING btree ("tenant_id","user_id","key") WHERE state = 1;--> statement-breakpoint
CREATE INDEX "batches_flush" ON "batches" USING btree ("flush_at") WHERE state in (1, 2);--> statement-breakpoint
CREATE INDEX "batches_user" ON "batches" USING btree ("user_id","tenant_id","id");--> statement-breakpoint
CREATE INDEX "batches_ended" ON "batches" USING btree ("ended_at") WHERE ended_at is not null;--> statement-breakpoint
CREATE INDEX "notifications_batch" ON "notifications" USING btree ("tenant_id","batch_id","id") WHERE batch_id is not null;--> statement-breakpoint
CREATE INDEX "notifications_collapse" ON "notifications" USING btree ("tenant_id","user_id","collapse_key") WHERE collapse_key is not null and status in (1, 2, 3, 4);--> statement-breakpoint
CREATE INDEX "notifications_waiting_user" ON "notifications" USING btree ("tenant_id","user_id") WHERE status in (2, 3, 4);--> statement-breakpoint
GRANT SELECT, INSERT, UPDATE, DELETE ON "batches" TO posthorn_tenant, posthorn_system;--> statement-breakpoint
ALTER TABLE "batches" ENABLE ROW LEVEL SECURITY;--> statement-breakpoint
CREATE POLICY every_tenant ON "batches" TO posthorn_system USING (true) WITH CHECK (true);--> statement-breakpoint
CREATE POLICY one_tenant ON "batches" TO posthorn_tenant
  USING (tenant_id = (SELECT nullif(current_setting('posthorn.tenant', true), '')::uuid))
  WITH CHECK (tenant_id = (SELECT nullif(current_setting('posthorn.tenant', true), '')::uuid));
