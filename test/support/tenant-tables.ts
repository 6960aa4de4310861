import type { Sql } from "postgres";
import { uuidFloor } from "#src/store/partitions.ts";

/** A table as the catalogue knows it, so that what holds for every table holds for those to come. */
export type Table = { name: string; partitioned: boolean; tenantColumn: string; columns: readonly Column[] };

export type Column = { name: string; type: string; required: boolean };

/** Every table of the schema that is not itself a month of another. */
export async function tenantTables(sql: Sql): Promise<Table[]> {
  const tables = await sql<Omit<Table, "tenantColumn">[]>`
    select c.relname as name, c.relkind = 'p' as partitioned,
      jsonb_agg(jsonb_build_object('name', a.attname, 'type', format_type(a.atttypid, null),
        'required', a.attnotnull and not a.atthasdef) order by a.attnum) as columns
    from pg_class c join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
    where c.relnamespace = 'public'::regnamespace and c.relkind in ('r', 'p') and not c.relispartition
    group by c.oid order by c.relname`;
  return tables.map(({ name, partitioned, columns }) => {
    const tenantColumn = name === "tenants" ? "id" : "tenant_id";
    return { name, partitioned, columns, tenantColumn };
  });
}

/** The months that exist, with the table each is of. */
export function months(sql: Sql): Promise<{ name: string; table: string }[]> {
  return sql`
    select c.relname as name, p.relname as table
    from pg_inherits i join pg_class c on c.oid = i.inhrelid join pg_class p on p.oid = i.inhparent
    where c.relkind = 'r' and p.relnamespace = 'public'::regnamespace order by c.relname`;
}

/** The least a row of a table must have, as text for Postgres to read. `unique` makes it differ from all others. */
export function rowOf(table: Table, tenantId: string, unique: string, at: Date): Record<string, string> {
  const row: Record<string, string> = {};
  for (const { name, type, required } of table.columns) {
    if (name === table.tenantColumn) row[name] = tenantId;
    else if (required) row[name] = textOf(type, unique, at);
  }
  return row;
}

function textOf(type: string, unique: string, at: Date): string {
  if (type === "uuid")
    return `${uuidFloor(at).slice(0, 24)}${Buffer.from(unique).toString("hex").slice(-12).padStart(12, "0")}`;
  if (type === "text") return unique;
  if (type.startsWith("timestamp")) return at.toISOString();
  if (type === "bytea") return "\\x00";
  if (type === "jsonb" || type.endsWith("[]")) return "{}";
  if (type === "boolean") return "false";
  if (["smallint", "integer", "bigint"].includes(type)) return "1";
  throw new Error(`no value is known for columns of type ${type}`);
}

/** An insert of a row made by `rowOf`. */
export function insertion(table: Table, row: Record<string, string>): string {
  const values = Object.values(row).map((value) => `'${value.replaceAll("'", "''")}'`);
  return `insert into ${table.name} (${Object.keys(row).join(", ")}) values (${values.join(", ")})`;
}

/** How many rows of a tenant every table has, and a hash of all they say. */
export async function contentOf(sql: Sql, tenantId: string): Promise<Record<string, string>> {
  const tables = await tenantTables(sql);
  const parts = tables.map(
    ({ name, tenantColumn }) => `
      select '${name}' as name, count(*) || ' ' || coalesce(md5(string_agg(t::text, '|' order by t::text)), '') as content
      from ${name} t where ${tenantColumn} = $1`,
  );
  const rows = await sql.unsafe<{ name: string; content: string }[]>(parts.join(" union all "), [tenantId]);
  return Object.fromEntries(rows.map(({ name, content }) => [name, content]));
}
