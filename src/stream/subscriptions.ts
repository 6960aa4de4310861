import type { Subscription } from "nats";
import type { Broker } from "#src/broker/broker.ts";

export type SharedSubscriptions<Member> = {
  join(subject: string, member: Member): void;
  /** Nothing happens when it is no member. The last one's leaving ends the subscription. */
  leave(subject: string, member: Member): void;
  /** Settles when NATS knows of all that was joined before, at once while it is away. Who asks together shares a round trip. */
  known(): Promise<void>;
};

/** One subscription to NATS for each subject, however many members it has. They are given each message together. */
export function sharedSubscriptions<Member>(
  broker: Broker,
  deliver: (data: Uint8Array, members: ReadonlySet<Member>) => void,
): SharedSubscriptions<Member> {
  const subjects = new Map<string, { subscription: Subscription; members: Set<Member> }>();
  let flushing: Promise<void> | undefined;

  return {
    join(subject, member) {
      let entry = subjects.get(subject);
      if (entry === undefined) {
        const members = new Set<Member>();
        const subscription = broker.nats.subscribe(subject, { callback: (_, { data }) => deliver(data, members) });
        entry = { subscription, members };
        subjects.set(subject, entry);
      }
      entry.members.add(member);
    },
    leave(subject, member) {
      const entry = subjects.get(subject);
      entry?.members.delete(member);
      if (entry?.members.size !== 0) return;
      entry.subscription.unsubscribe();
      subjects.delete(subject);
    },
    known() {
      if (!broker.up()) return Promise.resolve();
      flushing ??= new Promise<void>((resolve) => setImmediate(resolve)).then(() => {
        flushing = undefined;
        return broker.nats.flush();
      });
      return flushing;
    },
  };
}
