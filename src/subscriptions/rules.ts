import { breathe } from "#src/breathe.ts";
import { TOPIC_TAG } from "#src/stream/filter.ts";
import type { Answer, FilterEvaluator, Filtered } from "./evaluate.ts";

/** What a subscription is to: the numbers of the target's fields in posthorn.v1.Subscription. */
export const Kind = { TYPE: 2, TOPIC: 3, CATEGORY: 4 } as const;
export type Kind = (typeof Kind)[keyof typeof Kind];

/** A subscription as deciding needs it: kind, key and filter. The id is missing in copies that an older server has made. */
export type Wish = readonly [kind: Kind, key: string, filter: string, id?: string];

/** What subscriptions said, and the ids of those that let it through, or of some of those that did not. */
export type Judged = { answer: Answer; ids: readonly string[] };

/** What a user's subscriptions say about notifications. */
export type Wishes = {
  /** Whether the user is subscribed to the type itself, with or without a filter. */
  toType(type: string): boolean;
  /** What has to be asked about a notification: of each group one filter must match. Empty: nothing. */
  groups(about: Pick<Filtered, "type" | "category" | "tags">): (readonly string[])[];
  ask(about: Filtered): Answer;
  judge(about: Filtered): Judged;
  /** Has one filter ready; to be done one by one, with breath in between, before `ask`. */
  prepare(filter: string): void;
};

/**
 * Draws the rules from a user's subscriptions; undefined when there are none. The type's come before the category's, as
 * everywhere in preferences; the topics' stand beside them. One without a filter lets everything of its target through.
 */
export function wishesOf(subscriptions: readonly Wish[], evaluator: FilterEvaluator): Wishes | undefined {
  if (subscriptions.length === 0) return undefined;
  const targets = Map.groupBy(subscriptions, ([kind, key]) => `${kind} ${key}`);
  const topics = subscriptions.some(([kind]) => kind === Kind.TOPIC);
  const narrowing = (wishes: readonly Wish[] | undefined) =>
    wishes === undefined || wishes.some(([, , filter]) => filter === "") ? [] : [wishes];

  function asked({ type, category, tags }: Pick<Filtered, "type" | "category" | "tags">): (readonly Wish[])[] {
    const own = targets.get(`${Kind.TYPE} ${type}`) ?? targets.get(`${Kind.CATEGORY} ${category}`);
    if (!topics) return narrowing(own);
    const through = tags.flatMap((tag) =>
      tag.startsWith(TOPIC_TAG) ? (targets.get(`${Kind.TOPIC} ${tag.slice(TOPIC_TAG.length)}`) ?? []) : [],
    );
    return [...narrowing(own), ...narrowing(through.length === 0 ? undefined : through)];
  }

  const filtersOf = (wished: readonly (readonly Wish[])[]) =>
    wished.map((group) => group.map(([, , filter]) => filter));
  const groups: Wishes["groups"] = (about) => filtersOf(asked(about));

  return {
    toType: (type) => targets.has(`${Kind.TYPE} ${type}`),
    groups,
    ask: (about) => evaluator.ask(groups(about), about),
    judge(about) {
      const wished = asked(about);
      const { answer, matched } = evaluator.judge(filtersOf(wished), about);
      const through = matched.map((place, group) => wished[group]?.[place]);
      const named = answer === "match" ? through : (wished[matched.length] ?? []).slice(0, NAMED);
      return { answer, ids: named.flatMap((wish) => wish?.[3] ?? []) };
    },
    prepare: (filter) => evaluator.prepare(filter),
  };
}

/** Of those that did not match. */
const NAMED = 10;

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
