ALTER TABLE "types" ADD COLUMN "value" smallint DEFAULT 3 NOT NULL;--> statement-breakpoint
ALTER TABLE "types" ADD COLUMN "urgency" smallint DEFAULT 3 NOT NULL;