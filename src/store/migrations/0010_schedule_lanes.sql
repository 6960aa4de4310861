ALTER TABLE "schedules" ADD COLUMN "type" text;--> statement-breakpoint
ALTER TABLE "schedules" ADD COLUMN "priority" smallint;--> statement-breakpoint
ALTER TABLE "schedules" ADD COLUMN "lane" smallint;--> statement-breakpoint
-- The varint that begins at a byte, and where it ends.
CREATE FUNCTION pg_temp.varint(message bytea, INOUT at int, OUT value bigint) LANGUAGE plpgsql AS $$
DECLARE
  shift int := 0;
  byte int;
BEGIN
  value := 0;
  LOOP
    byte := get_byte(message, at);
    at := at + 1;
    value := value | ((byte & 127)::bigint << shift);
    EXIT WHEN byte < 128;
    shift := shift + 7;
  END LOOP;
END $$;--> statement-breakpoint
-- A field of an encoded message: a string or a number. Null when it is not in there, or the message is none.
CREATE FUNCTION pg_temp.field(message bytea, wanted int) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
  at int := 0;
  tag bigint;
  value bigint;
  found text;
BEGIN
  WHILE at < octet_length(message) LOOP
    SELECT v.at, v.value INTO at, tag FROM pg_temp.varint(message, at) v;
    CASE tag & 7
      WHEN 0 THEN
        SELECT v.at, v.value INTO at, value FROM pg_temp.varint(message, at) v;
        IF tag >> 3 = wanted THEN found := value::text; END IF;
      WHEN 1 THEN at := at + 8;
      WHEN 2 THEN
        SELECT v.at, v.value INTO at, value FROM pg_temp.varint(message, at) v;
        IF tag >> 3 = wanted THEN found := convert_from(substring(message FROM at + 1 FOR value::int), 'UTF8'); END IF;
        at := at + value::int;
      WHEN 5 THEN at := at + 4;
    END CASE;
  END LOOP;
  RETURN found;
EXCEPTION WHEN others THEN
  RETURN NULL;
END $$;--> statement-breakpoint
-- Of posthorn.v1.SendRequest.
UPDATE "schedules" SET "type" = coalesce(nullif(pg_temp.field("request", 2), ''), 'general'),
  "priority" = coalesce(pg_temp.field("request", 5)::smallint, 0);--> statement-breakpoint
UPDATE "schedules" s SET "lane" = coalesce(
  nullif(s."priority", 0),
  (SELECT t."default_priority" FROM "types" t WHERE t."tenant_id" = s."tenant_id" AND t."key" = s."type"),
  2
);--> statement-breakpoint
ALTER TABLE "schedules" ALTER COLUMN "type" SET NOT NULL, ALTER COLUMN "priority" SET NOT NULL, ALTER COLUMN "lane" SET NOT NULL;--> statement-breakpoint
DROP FUNCTION pg_temp.field(bytea, int);--> statement-breakpoint
DROP FUNCTION pg_temp.varint(bytea, int);--> statement-breakpoint
DROP INDEX "schedules_due";--> statement-breakpoint
CREATE INDEX "schedules_due" ON "schedules" USING btree ("lane","fires_at","tenant_id") WHERE fires_at is not null;--> statement-breakpoint
CREATE INDEX "schedules_due_of" ON "schedules" USING btree ("tenant_id","lane","fires_at") WHERE fires_at is not null;--> statement-breakpoint
ALTER TABLE "batches" ADD COLUMN "booked_at" timestamp (3) with time zone;--> statement-breakpoint
ALTER TABLE "batches" ADD COLUMN "booked_for" smallint;--> statement-breakpoint
ALTER TABLE "batches" ADD COLUMN "attempts" smallint DEFAULT 0 NOT NULL;
