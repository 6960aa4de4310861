CREATE TABLE "payload_contracts" (
	"tenant_id" uuid NOT NULL,
	"type" text NOT NULL,
	"version" integer NOT NULL,
	"id" uuid NOT NULL,
	"message" text NOT NULL,
	"descriptor_set" "bytea" NOT NULL,
	"digest" "bytea" NOT NULL,
	"created_at" timestamp (3) with time zone NOT NULL,
	"created_by" text NOT NULL,
	CONSTRAINT "payload_contracts_tenant_id_type_version_pk" PRIMARY KEY("tenant_id","type","version")
);
--> statement-breakpoint
ALTER TABLE "types" ADD COLUMN "payload_id" uuid;--> statement-breakpoint
ALTER TABLE "types" ADD COLUMN "payload_version" integer;--> statement-breakpoint
ALTER TABLE "types" ADD COLUMN "payload_message" text;
--> statement-breakpoint
-- As for the first tables: see 0000_foundation.sql.
DO $$
DECLARE name text;
BEGIN
  FOREACH name IN ARRAY ARRAY['payload_contracts'] LOOP
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
