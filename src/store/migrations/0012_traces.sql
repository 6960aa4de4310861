ALTER TABLE "escalations" ADD COLUMN "trace" text;--> statement-breakpoint
ALTER TABLE "hand_overs" ADD COLUMN "trace" text;