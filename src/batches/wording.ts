import type { BatchWording } from "#gen/posthorn/v1/type_service_pb.ts";

/** How a batch or digest reads, as its tenant says. What is empty is worded by us. */
export type Words = Pick<BatchWording, "title" | "body" | "more" | "icon" | "tag" | "url">;

/**
 * In a recipient's language, found as in RFC 4647 §3.4: the whole tag, else without its last subtag, and so on. What the
 * translation leaves empty, or a language that has none, reads as without any.
 */
export function wordsIn(wording: BatchWording, language: string): Words {
  const { title, body, more, icon, tag, url } = wording;
  const said = translationFor(wording, language);
  return { title: said?.title || title, body: said?.body || body, more: said?.more || more, icon, tag, url };
}

function translationFor(
  { translations }: BatchWording,
  language: string,
): BatchWording["translations"][string] | undefined {
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
