CREATE TABLE "preference_revisions" (
	"tenant_id" uuid NOT NULL,
	"user_id" text NOT NULL,
	"revision" integer NOT NULL,
	"document" jsonb NOT NULL,
	"updated_at" timestamp (3) with time zone NOT NULL,
	"replaced_at" timestamp (3) with time zone NOT NULL,
	CONSTRAINT "preference_revisions_tenant_id_user_id_revision_pk" PRIMARY KEY("tenant_id","user_id","revision")
);
--> statement-breakpoint
CREATE INDEX "preference_revisions_oldest" ON "preference_revisions" USING btree ("replaced_at");
--> statement-breakpoint
-- As for the first tables: see 0000_foundation.sql.
DO $$
DECLARE name text;
BEGIN
  FOREACH name IN ARRAY ARRAY['preference_revisions'] LOOP
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
