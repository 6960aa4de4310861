CREATE TABLE "type_revisions" (
	"tenant_id" uuid NOT NULL,
	"key" text NOT NULL,
	"revision" integer NOT NULL,
	"type" "bytea" NOT NULL,
	"actor" text NOT NULL,
	"changes" jsonb NOT NULL,
	CONSTRAINT "type_revisions_tenant_id_key_revision_pk" PRIMARY KEY("tenant_id","key","revision")
);
--> statement-breakpoint
ALTER TABLE "audit_entries" ADD COLUMN "changes" jsonb;
--> statement-breakpoint
-- As for the first tables: see 0000_foundation.sql.
DO $$
DECLARE name text;
BEGIN
  FOREACH name IN ARRAY ARRAY['type_revisions'] LOOP
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
