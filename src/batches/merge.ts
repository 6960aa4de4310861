import { create, fromBinary, type JsonObject } from "@bufbuild/protobuf";
import { type Content, ContentSchema } from "#gen/posthorn/v1/notification_pb.ts";
import type { Words } from "./wording.ts";

/** A notification that becomes part of another. */
export type Part = {
  id: string;
  priority: number;
  category: string;
  channels: number;
  content: Uint8Array;
  tags: string[] | null;
  senderId: string | null;
  bypassLimits: boolean;
  expiresAt: Date | null;
};

/** What several become. */
export type Merged = {
  content: Content;
  priority: number;
  channels: number;
  tags: string[];
  senderId: string | null;
  bypassLimits: boolean;
  /** With the last of its members; null: never. */
  expiresAt: Date | null;
};

/** Of Content. */
const MAX_TITLE = 255;
const MAX_BODY = 8000;
const MAX_URL = 2000;
const LINES = 10;
const LINES_PER_CATEGORY = 5;
const MAX_IDS = 100;
const MAX_TAGS = 20;
const MORE = "and {more} more";

/** Several of one type, in the order of their ids, as the type words it. Pure. */
export function mergeBatch(
  batchId: string,
  parts: readonly Part[],
  type: { key: string; displayName: string },
  words: Words | undefined,
): Merged {
  const count = parts.length;
  const contents = parts.map(({ content }) => fromBinary(ContentSchema, content));
  const [first] = contents;
  const icon = words?.icon || first?.icon || "";
  const url = counted(words?.url, count) ?? same(contents.map((content) => content.url)) ?? "";
  const list = lines(contents, LINES, "", words);
  return merged(parts, words?.tag, {
    title: counted(words?.title, count) ?? `${count} × ${type.displayName || type.key}`,
    body: listing(words?.body, count, list),
    icon,
    url: url.length > MAX_URL ? "" : url,
    data: { batch: { id: batchId, kind: "batch", count, notificationIds: idsOf(parts) } },
  });
}

/** Everything of a digest, by category: the largest categories first; worded by the tenant's type of that name. Pure. */
export function mergeDigest(batchId: string, parts: readonly Part[], words: Words | undefined): Merged {
  const count = parts.length;
  const groups = [...Map.groupBy(parts, (part) => part.category)].sort(
    ([a, some], [b, others]) => others.length - some.length || (a < b ? -1 : 1),
  );
  const paragraphs = groups.map(([category, members]) => {
    const contents = members.map(({ content }) => fromBinary(ContentSchema, content));
    return `${category} (${members.length})\n${lines(contents, LINES_PER_CATEGORY, "– ", words)}`;
  });
  const url = counted(words?.url, count) ?? "";
  return merged(parts, words?.tag, {
    title: counted(words?.title, count) ?? `${count} notifications`,
    body: listing(words?.body, count, paragraphs.join("\n\n")),
    icon: words?.icon ?? "",
    url: url.length > MAX_URL ? "" : url,
    data: {
      batch: {
        id: batchId,
        kind: "digest",
        count,
        notificationIds: idsOf(parts),
        categories: groups.slice(0, MAX_IDS).map(([category, { length }]) => ({ category, count: length })),
      },
    },
  });
}

function merged(
  parts: readonly Part[],
  tag: string | undefined,
  content: { title: string; body: string; icon: string; url: string; data: JsonObject },
): Merged {
  const [first, ...others] = parts;
  const common = (first?.tags ?? []).filter((each) => others.every((part) => part.tags?.includes(each)));
  const expiries = parts.map((part) => part.expiresAt?.getTime() ?? Number.POSITIVE_INFINITY);
  const last = Math.max(...expiries);
  return {
    content: create(ContentSchema, {
      ...content,
      title: cut(content.title, MAX_TITLE),
      body: cut(content.body, MAX_BODY),
    }),
    priority: Math.max(...parts.map((part) => part.priority)),
    channels: parts.reduce((bits, part) => bits | part.channels, 0),
    tags: [...new Set([...(tag ? [tag] : []), ...common])].slice(0, MAX_TAGS),
    senderId: same(parts.map((part) => part.senderId)) ?? null,
    bypassLimits: parts.every((part) => part.bypassLimits),
    expiresAt: Number.isFinite(last) ? new Date(last) : null,
  };
}

function idsOf(parts: readonly Part[]): string[] {
  return parts.slice(0, MAX_IDS).map(({ id }) => id);
}

function lines(contents: readonly Content[], most: number, mark: string, words: Words | undefined): string {
  const shown = contents.slice(0, most).map(({ title }) => `${mark}${title}`);
  const left = contents.length - shown.length;
  const more = (words?.more || MORE).replaceAll("{more}", String(left));
  return [...shown, ...(left > 0 ? [`${mark}${more}`] : [])].join("\n");
}

/** What the tenant says; undefined where it says nothing. */
function counted(text: string | undefined, count: number): string | undefined {
  return (text || undefined)?.replaceAll("{count}", String(count));
}

/** The list goes in last, and once: what members say is text, whatever it looks like. */
function listing(body: string | undefined, count: number, list: string): string {
  return counted(body, count)?.replace("{list}", () => list) ?? list;
}

/** The value that all have; undefined when they differ. */
function same<T>(values: readonly T[]): T | undefined {
  return values.every((value) => value === values[0]) ? values[0] : undefined;
}

/** By characters as the contract counts them, so that no surrogate pair is torn. */
function cut(text: string, most: number): string {
  if (text.length <= most) return text;
  const characters = [...text];
  return characters.length <= most ? text : `${characters.slice(0, most - 1).join("")}…`;
}
