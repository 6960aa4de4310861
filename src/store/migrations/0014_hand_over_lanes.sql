ALTER TABLE "hand_overs" ADD COLUMN "priority" smallint DEFAULT 2 NOT NULL;--> statement-breakpoint
UPDATE "hand_overs" h SET "priority" = n."priority" FROM "notifications" n
WHERE n."tenant_id" = h."tenant_id" AND n."id" = h."notification_id";--> statement-breakpoint
DROP INDEX "hand_overs_due";--> statement-breakpoint
CREATE INDEX "hand_overs_due" ON "hand_overs" USING btree ("channel","priority","due_at");
