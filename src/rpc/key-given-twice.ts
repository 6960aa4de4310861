/** Where a value stands in JSON: keys of objects and places in lists. */
export type JsonPath = readonly (string | number)[];

/** An object or a list that has been opened: the keys it has had, or for a list none, and what is at work in it now. */
type Open = { readonly keys: Set<string> | undefined; at: string | number };

/**
 * The first key that an object has a second time: JSON.parse keeps the last without a word, and the library that refuses
 * such a request says only how the key is called. The text must be well-formed.
 */
export function keyGivenTwice(text: string): JsonPath | undefined {
  const open: Open[] = [];
  let isKey = false;
  for (let i = 0; i < text.length; i++) {
    const inner = open.at(-1);
    switch (text[i]) {
      case "{":
        open.push({ keys: new Set(), at: "" });
        isKey = true;
        break;
      case "[":
        open.push({ keys: undefined, at: 0 });
        isKey = false;
        break;
      case "}":
      case "]":
        open.pop();
        isKey = false;
        break;
      case ",":
        isKey = inner?.keys !== undefined;
        if (typeof inner?.at === "number") inner.at++;
        break;
      case '"': {
        const end = endOfString(text, i);
        if (isKey && inner?.keys !== undefined) {
          // Written with escapes or without, it is the same key.
          const key: string = JSON.parse(text.slice(i, end + 1));
          inner.at = key;
          if (inner.keys.has(key)) return open.map(({ at }) => at);
          inner.keys.add(key);
        }
        isKey = false;
        i = end;
      }
    }
  }
  return undefined;
}

function endOfString(text: string, start: number): number {
  for (let i = start + 1; i < text.length; i++) {
    if (text[i] === "\\") i++;
    else if (text[i] === '"') return i;
  }
  return text.length;
}
