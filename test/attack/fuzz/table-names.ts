import { readdir } from "node:fs/promises";
import { join } from "node:path";
import type { DescMessage } from "@bufbuild/protobuf";
import { getTableName, isTable } from "drizzle-orm";
import { getTableConfig, type PgTable } from "drizzle-orm/pg-core";
import { METHODS } from "../../support/contract.ts";

const SCHEMA = join(import.meta.dirname, "../../../src/store/schema");

/**
 * How a text says that it is about our database, whatever the schema holds now: by a table that no field of the contract
 * is called by, and that is no plain word such as "users"; or by a key, an index or a month of any table.
 */
export async function tableNames(): Promise<RegExp> {
  const files = (await readdir(SCHEMA)).filter((file) => file.endsWith(".ts"));
  const modules = await Promise.all(files.map((file) => import(join(SCHEMA, file)) as Promise<object>));
  const tables = modules.flatMap((module) => Object.values(module)).filter((each) => isTable(each));
  const said = new Set<string>();
  const seen = new Set<DescMessage>();
  for (const { input, output } of METHODS) for (const desc of [input, output]) fieldNames(desc, said, seen);
  const names = tables.flatMap((table) => {
    const { name, indexes, primaryKeys } = getTableConfig(table as PgTable);
    return [name, ...indexes.flatMap(({ config }) => config.name ?? []), ...primaryKeys.map((key) => key.getName())];
  });
  const telling = [...new Set(names)].filter((name) => name.includes("_") && !said.has(name)).toSorted();
  if (telling.length < 50) throw new Error(`this is not the whole schema: ${telling.join(", ")}`);
  const months = `(?:${tables.map(getTableName).join("|")})_\\d{4}_\\d\\d`;
  return new RegExp(`\\b(?:${telling.join("|")}|${months})\\b`);
}

function fieldNames(desc: DescMessage, said: Set<string>, seen: Set<DescMessage>): void {
  if (seen.has(desc)) return;
  seen.add(desc);
  for (const field of desc.fields) {
    said.add(field.name);
    if (field.message !== undefined) fieldNames(field.message, said, seen);
  }
}
