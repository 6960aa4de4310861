import type { BatchWording } from "#gen/posthorn/v1/type_service_pb.ts";
import { inLanguage } from "#src/types/in-language.ts";

/** How a batch or digest reads, as its tenant says. What is empty is worded by us. */
export type Words = Pick<BatchWording, "title" | "body" | "more" | "icon" | "tag" | "url">;

/** In a recipient's language. What the translation leaves empty, or a language that has none, reads as without any. */
export function wordsIn(wording: BatchWording, language: string): Words {
  const { title, body, more, icon, tag, url } = wording;
  const said = inLanguage(wording.translations, language);
  return { title: said?.title || title, body: said?.body || body, more: said?.more || more, icon, tag, url };
}
