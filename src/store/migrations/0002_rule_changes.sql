CREATE TABLE "rule_changes" (
	"tenant_id" uuid NOT NULL,
	"user_id" text NOT NULL,
	"type" text NOT NULL,
	"status" smallint NOT NULL,
	"after" uuid NOT NULL,
	"changed_at" timestamp (3) with time zone NOT NULL,
	CONSTRAINT "rule_changes_tenant_id_user_id_type_pk" PRIMARY KEY("tenant_id","user_id","type")
);
--> statement-breakpoint
ALTER TABLE "notifications" ADD COLUMN "local_time" text;--> statement-breakpoint
ALTER TABLE "notifications" ADD COLUMN "local_ttl_ms" bigint;--> statement-breakpoint
CREATE INDEX "rule_changes_oldest" ON "rule_changes" USING btree ("changed_at");--> statement-breakpoint
DO $$
DECLARE name text;
BEGIN
  FOREACH name IN ARRAY ARRAY['rule_changes'] LOOP
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
