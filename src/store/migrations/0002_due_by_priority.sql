DROP INDEX "notifications_due";--> statement-breakpoint
CREATE INDEX "notifications_due" ON "notifications" USING btree ("priority","due_at") WHERE due_at is not null;