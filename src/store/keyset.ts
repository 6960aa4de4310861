import type { PageTokens } from "./page-token.ts";

export type KeysetList<T> = {
  /** Everything that must be equal on the next call, the tenant and the method first. */
  query: readonly unknown[];
  pageToken: string;
  pageSize: number;
  /** Up to `limit` items after a key, "" for the first page. */
  read(after: string, limit: number): Promise<T[]>;
  /** What the list is ordered by; unique and never empty. */
  keyOf(item: T): string;
};

/** One page of a list ordered by a text key. The token is empty on the last page. Throws INVALID_PAGE_TOKEN. */
export async function keysetPage<T>(
  tokens: PageTokens,
  { query, pageToken, pageSize, keyOf, read }: KeysetList<T>,
): Promise<{ items: T[]; nextPageToken: string }> {
  const after = String(tokens.open(query, pageToken)?.[0] ?? "");
  const found = await read(after, pageSize + 1);
  const items = found.slice(0, pageSize);
  const last = found.length > pageSize ? items.at(-1) : undefined;
  return { items, nextPageToken: last === undefined ? "" : tokens.seal(query, [keyOf(last)]) };
}
