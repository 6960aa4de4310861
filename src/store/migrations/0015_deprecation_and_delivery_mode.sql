ALTER TABLE "types" ADD COLUMN "deprecation" "bytea";--> statement-breakpoint
ALTER TABLE "types" ADD COLUMN "delivery_mode" smallint DEFAULT 1 NOT NULL;--> statement-breakpoint
ALTER TABLE "hand_overs" ADD COLUMN "at_most_once" boolean DEFAULT false NOT NULL;--> statement-breakpoint
ALTER TABLE "hand_overs" ADD COLUMN "given" boolean DEFAULT false NOT NULL;