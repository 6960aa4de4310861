ALTER TABLE "hand_overs" ADD COLUMN "claimed" boolean DEFAULT false NOT NULL;--> statement-breakpoint
-- What was tried before waits, or is in somebody's hands: in doubt the latter, until it is claimed again.
UPDATE "hand_overs" SET "claimed" = true WHERE "attempts" > 0;--> statement-breakpoint
ALTER TABLE "hand_overs" ADD COLUMN "cancelled_by" text;
