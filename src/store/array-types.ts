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

/**
 * The other array types of pg_type.dat (Postgres 18). The driver would hand out their text, `{a,b}`, as if it were a value.
 * There are no array types of our own.
 */
const UNLISTED = [
  143, 199, 210, 270, 271, 272, 273, 629, 651, 719, 775, 791, 1002, 1003, 1006, 1008, 1010, 1012, 1013, 1014, 1017,
  1018, 1019, 1020, 1021, 1027, 1028, 1034, 1040, 1041, 1115, 1182, 1183, 1187, 1231, 1263, 1270, 1561, 1563, 2201,
  2207, 2208, 2209, 2210, 2211, 2287, 2949, 3221, 3643, 3644, 3645, 3735, 3770, 3905, 3907, 3909, 3911, 3913, 3927,
  4073, 4090, 4097, 4192, 5039, 6150, 6151, 6152, 6153, 6155, 6157,
];

const listed = Object.fromEntries(
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

const unlisted = Object.fromEntries(
  UNLISTED.map((oid) => {
    const refuse = () => {
      throw new Error(`the array type with OID ${oid} is not listed in src/store/array-types.ts`);
    };
    // A literal is text already, and needs nobody to write it.
    const serialize = (value: unknown) => (Array.isArray(value) ? refuse() : value);
    return [`array${oid}`, { to: oid, from: [oid], serialize, parse: refuse }];
  }),
);

/**
 * Options that tell postgres.js of the array types. By itself it asks Postgres for them on every new connection, in a
 * promise that nobody holds (3.4.9, fetchArrayTypes): a connection that is reset at that moment ends the process. Not
 * typed, because types named here would become part of the type of the client. A query that returns an array of a type
 * that is not listed fails and says which.
 */
export const WITH_ARRAYS: object = { fetch_types: false, types: { ...listed, ...unlisted } };

function textOf(item: unknown): string | null {
  if (item === null || item === undefined) return null;
  if (item instanceof Date) return item.toISOString();
  if (item instanceof Uint8Array) return `\\x${Buffer.from(item).toString("hex")}`;
  return String(item);
}
