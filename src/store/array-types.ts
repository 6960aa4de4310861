import { parse as parseArray } from "postgres-array";
import { texts } from "./arrays.ts";

/** An array type of Postgres, by the OIDs that pg_type.dat gives it and its elements, and what an element's text is here. */
const ARRAYS: readonly [array: number, element: (text: string) => unknown][] = [
  [1000, (text) => text === "t"], // boolean
  [1001, (text) => Buffer.from(text.slice(2), "hex")], // bytea
  [1005, Number], // smallint
  [1007, Number], // integer
  [1016, String], // bigint
  [1009, String], // text
  [1015, String], // varchar
  [1022, Number], // double precision
  [1185, (text) => new Date(text)], // timestamptz
  [1011, String], // xid
  [2951, String], // uuid
  [3807, (text) => JSON.parse(text)], // jsonb
];

const types = Object.fromEntries(
  ARRAYS.map(([oid, element]) => [
    `array${oid}`,
    {
      to: oid,
      from: [oid],
      serialize: (value: unknown) => (Array.isArray(value) ? texts(value.map(textOf)) : value),
      parse: (text: string) => parseArray(text, (item) => element(item)),
    },
  ]),
);

/**
 * Options that tell postgres.js of the array types. By itself it asks Postgres for them on every new connection, in a
 * promise that nobody holds (3.4.9, fetchArrayTypes): a connection that is reset at that moment ends the process. Not
 * typed, because types named here would become part of the type of the client.
 */
export const WITH_ARRAYS: object = { fetch_types: false, types };

function textOf(item: unknown): string | null {
  if (item === null || item === undefined) return null;
  if (item instanceof Date) return item.toISOString();
  if (item instanceof Uint8Array) return `\\x${Buffer.from(item).toString("hex")}`;
  return String(item);
}
