/**
 * What is said in a recipient's language, found as in RFC 4647 §3.4: by the whole tag, else without its last subtag, and so
 * on; undefined where nothing is.
 */
export function inLanguage<T>(translations: Readonly<Record<string, T>>, language: string): T | undefined {
  const byTag = new Map(Object.entries(translations).map(([tag, words]) => [tag.toLowerCase(), words]));
  if (byTag.size === 0) return undefined;
  const subtags = language.toLowerCase().split("-");
  for (; subtags.length > 0; subtags.pop()) {
    const words = byTag.get(subtags.join("-"));
    if (words !== undefined) return words;
    // "zh-Hant-TW" goes to "zh-Hant"; an extension's single letter says nothing without what it introduces.
    if (subtags.at(-2)?.length === 1) subtags.pop();
  }
  return undefined;
}
