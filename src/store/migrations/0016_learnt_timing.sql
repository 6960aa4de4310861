CREATE TABLE "looks" (
	"tenant_id" uuid NOT NULL,
	"user_id" text NOT NULL,
	"weights" double precision[] NOT NULL,
	"since" timestamp (3) with time zone NOT NULL,
	"last_hour" timestamp (3) with time zone NOT NULL,
	CONSTRAINT "looks_tenant_id_user_id_pk" PRIMARY KEY("tenant_id","user_id")
);
--> statement-breakpoint
ALTER TABLE "types" ADD COLUMN "timing_max_wait_ms" bigint;--> statement-breakpoint
CREATE INDEX "looks_last" ON "looks" USING btree ("last_hour");
--> statement-breakpoint
-- As for the first tables: see 0000_foundation.sql.
DO $$
DECLARE name text;
BEGIN
  FOREACH name IN ARRAY ARRAY['looks'] LOOP
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
