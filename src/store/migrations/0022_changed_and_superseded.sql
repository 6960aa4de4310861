ALTER TABLE "inbox" ADD COLUMN "updated_at" timestamp (3) with time zone;--> statement-breakpoint
ALTER TABLE "hand_overs" ADD COLUMN "cancel_reason" smallint;--> statement-breakpoint
CREATE INDEX "escalations_open_user" ON "escalations" USING btree ("user_id","tenant_id") WHERE due_at is not null;