// Array parameters as Postgres array literals. The driver takes the type of an array from its first element, and then a
// list of dates, booleans or bytes is sent as one date, boolean or byte string; a literal is read as what it is cast to.
// Use with a cast: `unnest(${bytes(hashes)}::bytea[])`.

/** For ids and numbers, whose text needs no quotes. */
export function plain(items: readonly (string | number | boolean | null | undefined)[]): string {
  let out = "{";
  for (let n = 0; n < items.length; n++) out += `${n === 0 ? "" : ","}${items[n] ?? "null"}`;
  return `${out}}`;
}

/** For text, and for array literals within an array. */
export function texts(items: readonly (string | null | undefined)[]): string {
  let out = "{";
  for (let n = 0; n < items.length; n++) {
    const item = items[n];
    out += `${n === 0 ? "" : ","}${item == null ? "null" : quoted(item)}`;
  }
  return `${out}}`;
}

export function bytes(items: readonly (Uint8Array | null | undefined)[]): string {
  let out = "{";
  for (let n = 0; n < items.length; n++) {
    const item = items[n];
    out += `${n === 0 ? "" : ","}${item == null ? "null" : `"\\\\x${hex(item)}"`}`;
  }
  return `${out}}`;
}

export function instants(items: readonly (Date | null | undefined)[]): string {
  let out = "{";
  for (let n = 0; n < items.length; n++) out += `${n === 0 ? "" : ","}${items[n]?.toISOString() ?? "null"}`;
  return `${out}}`;
}

function quoted(item: string): string {
  return `"${/["\\]/.test(item) ? item.replaceAll(/["\\]/g, "\\$&") : item}"`;
}

function hex(item: Uint8Array): string {
  return Buffer.from(item.buffer, item.byteOffset, item.byteLength).toString("hex");
}
