import fc from "fast-check";
import { expect, test } from "vitest";
import { ErrorReason } from "#gen/posthorn/v1/error_pb.ts";
import { Fault } from "#src/errors.ts";
import { keysetPage } from "#src/store/keyset.ts";
import { pageTokens } from "#src/store/page-token.ts";
import { uuidFloor, uuidTime } from "#src/store/partitions.ts";

const tokens = pageTokens(new Uint8Array(32).fill(1));
const QUERY = ["tenant", "ListThings", { tag: "a" }];

const refused = (query: readonly unknown[], token: string, by = tokens) => {
  try {
    by.open(query, token);
  } catch (error) {
    return error instanceof Fault && error.reason === ErrorReason.INVALID_PAGE_TOKEN;
  }
  return false;
};

test("a token opens for its own query, and none is the first page", () => {
  fc.assert(
    fc.property(fc.array(fc.oneof(fc.string(), fc.integer())), (position) => {
      expect(tokens.open(QUERY, tokens.seal(QUERY, position))).toEqual(position);
    }),
  );
  expect(tokens.open(QUERY, "")).toBeUndefined();
});

test("no bit of a token can be changed, and nothing else is one", () => {
  const token = Buffer.from(tokens.seal(QUERY, ["key", 7]), "base64url");
  for (let bit = 0; bit < token.length * 8; bit++) {
    const changed = Buffer.from(token);
    changed[bit >> 3] = (changed[bit >> 3] ?? 0) ^ (1 << (bit & 7));
    expect(refused(QUERY, changed.toString("base64url"))).toBe(true);
  }
  fc.assert(fc.property(fc.string({ minLength: 1 }), (text) => refused(QUERY, text)));
});

test("a token of another tenant, list, filter or installation is refused", () => {
  const token = tokens.seal(QUERY, ["key"]);
  for (const query of [
    ["other", "ListThings", { tag: "a" }],
    ["tenant", "ListOthers", { tag: "a" }],
    ["tenant", "ListThings", {}],
  ])
    expect(refused(query, token)).toBe(true);
  expect(refused(QUERY, token, pageTokens(new Uint8Array(32).fill(2)))).toBe(true);
});

test("pages put together are the list, whatever its length and the size of the pages", async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.uniqueArray(fc.string({ minLength: 1, maxLength: 4 }), { maxLength: 30 }),
      fc.integer({ min: 1, max: 12 }),
      async (keys, pageSize) => {
        const list = keys.toSorted();
        const read = async (after: string, limit: number) => list.filter((key) => key > after).slice(0, limit);
        const seen: string[] = [];
        let pageToken = "";
        do {
          const page = await keysetPage(tokens, { query: QUERY, pageToken, pageSize, read, keyOf: (key) => key });
          seen.push(...page.items);
          pageToken = page.nextPageToken;
        } while (pageToken !== "");
        expect(seen).toEqual(list);
      },
    ),
  );
});

test("the smallest id of an instant says the instant, also of instants that no id can have", () => {
  for (const at of [new Date(0), new Date("2026-05-05T05:05:05.005Z"), new Date(2 ** 48 - 1)])
    expect(uuidTime(uuidFloor(at))).toEqual(at);
  const isUuid = /^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}$/;
  for (const at of [new Date(-1), new Date(-8.64e15), new Date(8.64e15), new Date(2 ** 48)])
    expect(uuidFloor(at)).toMatch(isUuid);
});
