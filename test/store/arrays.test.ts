import fc from "fast-check";
import postgres from "postgres";
import { afterAll, expect, test } from "vitest";
import { WITH_ARRAYS } from "#src/store/array-types.ts";
import { bytes, instants, plain, texts } from "#src/store/arrays.ts";
import { testServices } from "../support/services.ts";

const { databaseUrl } = await testServices();
const sql = postgres(databaseUrl, { max: 1, onnotice: () => undefined, ...WITH_ARRAYS });
afterAll(() => sql.end());

/** What breaks array literals that are put together carelessly. */
const awkward = fc.constantFrom(
  "",
  "NULL",
  "null",
  '"',
  "\\",
  "\\\\",
  "{}",
  "{a,b}",
  ",",
  " ",
  "\t\n\r",
  "'",
  "é",
  "😀",
  "\\x00",
  "a\\",
);
// What Postgres cannot hold (NUL, lone surrogates) is refused before (storable.ts).
const text = fc
  .oneof(
    awkward,
    fc.string({ unit: "binary", maxLength: 20 }),
    fc.array(awkward, { maxLength: 4 }).map((parts) => parts.join("")),
  )
  .filter((item) => !item.includes("\0") && item.isWellFormed());

const orNull = <T>(item: fc.Arbitrary<T>) => fc.array(fc.option(item), { maxLength: 20 });
const comesBack = <T>(items: fc.Arbitrary<T[]>, roundTrip: (items: T[]) => Promise<unknown>) =>
  fc.assert(
    fc.asyncProperty(items, async (list) => {
      expect(await roundTrip(list)).toEqual(list);
    }),
    { numRuns: 200, examples: [[[]]] as [T[]][] },
  );
const column = async (rows: PromiseLike<readonly { item: unknown }[]>) => (await rows).map(({ item }) => item);

test("texts come back as they were", () =>
  comesBack(orNull(text), (items) => column(sql`select item from unnest(${texts(items)}::text[]) item`)));

test("bytes come back as they were", () =>
  comesBack(orNull(fc.uint8Array({ maxLength: 40 }).map((item) => Buffer.from(item))), (items) =>
    column(sql`select item from unnest(${bytes(items)}::bytea[]) item`),
  ));

test("bytes are those of the view, not of what it looks at", async () => {
  const view = new Uint8Array([1, 2, 3, 4, 5]).subarray(1, 3);
  expect(await column(sql`select item from unnest(${bytes([view])}::bytea[]) item`)).toEqual([Buffer.from([2, 3])]);
});

test("instants come back to the millisecond", () => {
  const [min, max] = [new Date("0001-01-01T00:00:00Z"), new Date("9999-12-31T23:59:59.999Z")];
  // As numbers, because the driver takes the first centuries for the twentieth.
  return comesBack(orNull(fc.date({ min, max, noInvalidDate: true }).map((at) => at.getTime())), (items) => {
    const list = instants(items.map((at) => (at === null ? null : new Date(at))));
    return column(
      sql`select (extract(epoch from item) * 1000)::float8 as item from unnest(${list}::timestamptz[]) item`,
    );
  });
});

test("ids and numbers come back", async () => {
  await comesBack(orNull(fc.uuid()), (items) => column(sql`select item from unnest(${plain(items)}::uuid[]) item`));
  await comesBack(orNull(fc.integer()), (items) => column(sql`select item from unnest(${plain(items)}::int[]) item`));
  await comesBack(orNull(fc.boolean()), (items) => column(sql`select item from unnest(${plain(items)}::bool[]) item`));
  await comesBack(orNull(fc.maxSafeInteger()), (items) =>
    column(sql`select item::float8 from unnest(${plain(items)}::bigint[]) item`),
  );
});

test("lists of lists come back", () =>
  comesBack(orNull(fc.array(fc.option(text), { maxLength: 5 })), (items) => {
    const literals = items.map((list) => (list === null ? null : texts(list)));
    return column(sql`select to_jsonb(item::text[]) as item from unnest(${texts(literals)}::text[]) item`);
  }));

test("arrays of any other kind fail and say which, and the next query goes on", async () => {
  await expect(sql`select array[1.5::numeric] as item`).rejects.toThrow("array type with OID 1231");
  await expect(sql`select ${[1.5]}::numeric[] as item`).rejects.toThrow("array type with OID 1231");
  const types = await sql<{ oid: number; name: string }[]>`
    select typarray::int as oid, typname as name from pg_type where typarray between 1 and 9999 order by typarray`;
  expect(types.length).toBeGreaterThan(50);
  const { parsers } = sql.options as unknown as { parsers: Record<number, unknown> };
  expect(types.filter(({ oid }) => parsers[oid] === undefined)).toEqual([]);
});

test("arrays of every kind the tables have are read and written as lists", async () => {
  const at = new Date("2026-02-03T04:05:06.789Z");
  const id = "01890000-0000-7000-8000-00000000000a";
  const [row] = await sql`
    select ${["a", "NULL", null, 'q"{,}\\']}::text[] as texts, ${[1, 2]}::smallint[] as small, ${[]}::int[] as none,
      array[1000000000000000::bigint] as large, ${[id]}::uuid[] as ids, array[true, false] as flags,
      array[${at}::timestamptz] as times, array['\\x00ff'::bytea] as raw, array['{"a":[1]}'::jsonb] as json`;
  expect(row).toEqual({
    texts: ["a", "NULL", null, 'q"{,}\\'],
    small: [1, 2],
    none: [],
    large: ["1000000000000000"],
    ids: [id],
    flags: [true, false],
    times: [at],
    raw: [Buffer.from([0, 255])],
    json: [{ a: [1] }],
  });
});
