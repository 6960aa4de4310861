import { breathe } from "#src/breathe.ts";
import { TOPIC_TAG } from "#src/stream/filter.ts";
import type { Answer, FilterEvaluator, Filtered } from "./evaluate.ts";

/** What a subscription is to: the numbers of the target's fields in posthorn.v1.Subscription. */
export const Kind = { TYPE: 2, TOPIC: 3, CATEGORY: 4 } as const;
export type Kind = (typeof Kind)[keyof typeof Kind];

/** A subscription as deciding needs it: kind, key and filter. */
export type Wish = readonly [kind: Kind, key: string, filter: string];

/** What a user's subscriptions say about notifications. */
export type Wishes = {
  /** Whether the user is subscribed to the type itself, with or without a filter. */
  toType(type: string): boolean;
  /** What has to be asked about a notification: of each group one filter must match. Empty: nothing. */
  groups(about: Pick<Filtered, "type" | "category" | "tags">): (readonly string[])[];
  ask(about: Filtered): Answer;
  /** Has one filter ready; to be done one by one, with breath in between, before `ask`. */
  prepare(filter: string): void;
};

/**
 * Draws the rules from a user's subscriptions; undefined when there are none. The type's come before the category's, as
 * everywhere in preferences; the topics' stand beside them. One without a filter lets everything of its target through.
 */
export function wishesOf(subscriptions: readonly Wish[], evaluator: FilterEvaluator): Wishes | undefined {
  if (subscriptions.length === 0) return undefined;
  const targets = new Map<string, string[]>();
  for (const [kind, key, filter] of subscriptions) {
    const target = `${kind} ${key}`;
    const filters = targets.get(target);
    if (filters === undefined) targets.set(target, [filter]);
    else filters.push(filter);
  }
  const topics = subscriptions.some(([kind]) => kind === Kind.TOPIC);
  const narrowing = (filters: readonly string[] | undefined) =>
    filters === undefined || filters.includes("") ? [] : [filters];

  function groups({ type, category, tags }: Pick<Filtered, "type" | "category" | "tags">): (readonly string[])[] {
    const own = targets.get(`${Kind.TYPE} ${type}`) ?? targets.get(`${Kind.CATEGORY} ${category}`);
    if (!topics) return narrowing(own);
    const through = tags.flatMap((tag) =>
      tag.startsWith(TOPIC_TAG) ? (targets.get(`${Kind.TOPIC} ${tag.slice(TOPIC_TAG.length)}`) ?? []) : [],
    );
    return [...narrowing(own), ...narrowing(through.length === 0 ? undefined : through)];
  }

  return {
    toType: (type) => targets.has(`${Kind.TYPE} ${type}`),
    groups,
    ask: (about) => evaluator.ask(groups(about), about),
    prepare: (filter) => evaluator.prepare(filter),
  };
}

/** Has the filters about a notification ready to be asked. Breathes, because each takes up to a few milliseconds. */
export async function readyFilters(
  wishes: Wishes | undefined,
  { type, category, tags }: { type: string; category: string; tags?: readonly string[] | null | undefined },
): Promise<void> {
  for (const filter of wishes?.groups({ type, category, tags: tags ?? [] }).flat() ?? []) {
    await breathe();
    wishes?.prepare(filter);
  }
  await breathe();
}
