import type { StreamFilter } from "#gen/posthorn/v1/stream_service_pb.ts";

/** What a filter looks at. */
export type Filtered = { type: string; category: string; priority: number; tags: readonly string[] };

/** Compiles a stream's filter. All conditions must hold; absent ones do not restrict. */
export function compileFilter(filter: StreamFilter | undefined): (event: Filtered) => boolean {
  if (filter === undefined) return () => true;
  const types = new Set(filter.types);
  const categories = new Set(filter.categories);
  const tags = new Set(filter.topics.map(topicTag));
  return (event) =>
    event.priority >= filter.minimumPriority &&
    (types.size === 0 || types.has(event.type)) &&
    (categories.size === 0 || categories.has(event.category)) &&
    (tags.size === 0 || event.tags.some((tag) => tags.has(tag)));
}

/** How the tags begin that say through which topic something was sent. */
export const TOPIC_TAG = "topic:";

/** The tag that notifications sent to a topic carry. */
export function topicTag(topic: string): string {
  return `${TOPIC_TAG}${topic}`;
}
