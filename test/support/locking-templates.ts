import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { parseAst, Visitor } from "vite";

const SRC = join(import.meta.dirname, "../../src");

/** A statement, or a part of one, as it stands in the source. */
export type LockingTemplate = { readonly at: string; readonly pattern: RegExp };

const PARTITIONED = "(notifications|inbox|timeline|audit_entries)";
const LOCKS = /\bfor (no key )?(update|share)\b/;
const CHANGES = new RegExp(`\\b(update|delete from) ${PARTITIONED}\\b`);
const NAMES = new RegExp(`\\b${PARTITIONED}\\b`);

/** All templates of the source that lock rows and name a partitioned table, with what the statements made of them match. */
export function lockingTemplates(): LockingTemplate[] {
  return readdirSync(SRC, { recursive: true, encoding: "utf8" })
    .filter((file) => file.endsWith(".ts"))
    .toSorted()
    .flatMap((file) => {
      const source = readFileSync(join(SRC, file), "utf8");
      return templatesOf(source).flatMap(({ start, parts }) => {
        const text = oneLine(parts.join(" ? ")).replaceAll(/\/\*.*?\*\/ ?/g, "");
        if (!CHANGES.test(text) && !(LOCKS.test(text) && NAMES.test(text))) return [];
        const pattern = new RegExp(parts.map((part) => RegExp.escape(oneLine(part).trim())).join(".*?"));
        return [{ at: `src/${file}:${source.slice(0, start).split("\n").length}`, pattern }];
      });
    });
}

export function oneLine(statement: string): string {
  return statement.replaceAll(/\s+/g, " ");
}

function templatesOf(source: string): { start: number; parts: string[] }[] {
  const found: { start: number; parts: string[] }[] = [];
  new Visitor({
    TaggedTemplateExpression({ start, quasi }) {
      found.push({ start, parts: quasi.quasis.map(({ value }) => value.cooked ?? value.raw) });
    },
  }).visit(parseAst(source, { lang: "ts" }));
  return found;
}
