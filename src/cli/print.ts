// How results look: for people in colour and columns, with --json as one object a line.
import { stripVTControlCharacters, styleText } from "node:util";
import { type DescMessage, type MessageShape, toJson } from "@bufbuild/protobuf";
import { type Timestamp, timestampDate } from "@bufbuild/protobuf/wkt";
import type { World } from "./world.ts";

type Style = Parameters<typeof styleText>[0];

/** Colours text when the terminal wants colours. */
export type Paint = (style: Style, text: string) => string;

export function painter(world: Pick<World, "colour">): Paint {
  return (style, text) => (world.colour ? styleText(style, text, { validateStream: false }) : text);
}

/** One line of JSON with every field, also those at their default: a script should not have to know the defaults. */
export function jsonLine<S extends DescMessage>(schema: S, message: MessageShape<S>): string {
  return JSON.stringify(toJson(schema, message, { alwaysEmitImplicit: true }));
}

/** Text from elsewhere on one line, without what would steer the terminal. */
export function plain(text: string): string {
  // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is removed.
  return stripVTControlCharacters(text).replaceAll(/[\u0000-\u001f\u007f-\u009f\u2028\u2029]+/g, " ");
}

export function shorten(text: string, most: number): string {
  const characters = [...text];
  return characters.length <= most ? text : `${characters.slice(0, Math.max(most - 1, 0)).join("")}…`;
}

/** Rows in columns. */
export function columns(rows: readonly (readonly string[])[], indent = ""): string[] {
  const widths: number[] = [];
  for (const row of rows)
    for (const [i, cell] of row.entries()) widths[i] = Math.max(widths[i] ?? 0, stripVTControlCharacters(cell).length);
  const line = (row: readonly string[]) => row.map((cell, i) => pad(cell, widths[i] ?? 0)).join("  ");
  return rows.map((row) => indent + line(row).trimEnd());
}

function pad(text: string, width: number): string {
  return text + " ".repeat(Math.max(0, width - stripVTControlCharacters(text).length));
}

/** ISO 8601 to the second, in UTC; "-" when absent. */
export function when(time: Timestamp | undefined): string {
  return time === undefined
    ? "-"
    : timestampDate(time)
        .toISOString()
        .replace(/\.\d+Z$/, "Z");
}

export function plural(count: number | bigint, one: string, many = `${one}s`): string {
  return `${count.toLocaleString("en")} ${Number(count) === 1 ? one : many}`;
}
