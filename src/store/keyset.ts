import type { PageTokens } from "./page-token.ts";

export type KeysetList<T> = {
  /** Everything that must be equal on the next call, the tenant and the method first. */
  query: readonly unknown[];
  pageToken: string;
  pageSize: number;
  /**
   * Up to `limit` items after a key, "" for the first page; with `most.bytes` it may leave out what follows on items of more
   * than those.
   */
  read(after: string, limit: number): Promise<T[]>;
  /** How many bytes the items of a page may have together; it has one item at least. */
  most?: { bytes: number; sizeOf(item: T): number };
  /** What the list is ordered by; unique and never empty. */
  keyOf(item: T): string;
};

/** One page of a list ordered by a text key. The token is empty on the last page. Throws INVALID_PAGE_TOKEN. */
export async function keysetPage<T>(
  tokens: PageTokens,
  { query, pageToken, pageSize, keyOf, read, most }: KeysetList<T>,
): Promise<{ items: T[]; nextPageToken: string }> {
  const after = String(tokens.open(query, pageToken)?.[0] ?? "");
  const found = await read(after, pageSize + 1);
  const items = fitting(found.slice(0, pageSize), most);
  const last = found.length > items.length ? items.at(-1) : undefined;
  return { items, nextPageToken: last === undefined ? "" : tokens.seal(query, [keyOf(last)]) };
}

function fitting<T>(items: T[], most: KeysetList<T>["most"]): T[] {
  if (most === undefined) return items;
  let left = most.bytes;
  const end = items.findIndex((item, index) => {
    left -= most.sizeOf(item);
    return left < 0 && index > 0;
  });
  return end === -1 ? items : items.slice(0, end);
}
