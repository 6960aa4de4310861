CREATE INDEX "batches_type" ON "batches" USING btree ("tenant_id","type","id");--> statement-breakpoint
CREATE INDEX "batches_kind" ON "batches" USING btree ("tenant_id","kind","id");--> statement-breakpoint
CREATE INDEX "batches_state" ON "batches" USING btree ("tenant_id","state","id");