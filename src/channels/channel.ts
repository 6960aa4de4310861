import { Channel, type Content } from "#gen/posthorn/v1/notification_pb.ts";

/** All that there may be; a server has some of them. */
export const OUTSIDE_CHANNELS: readonly Channel[] = Object.values(Channel).filter((each) => each > Channel.IN_APP);

/** What an outside channel is to take to a user. */
export type Message = {
  /** The same whenever the same is handed over again: notification, step and channel. */
  readonly idempotencyKey: string;
  readonly tenantId: string;
  readonly notificationId: string;
  readonly userId: string;
  readonly channel: Channel;
  /** The number of the escalation's step; 0: of the decision. */
  readonly step: number;
  readonly type: string;
  readonly priority: number;
  readonly content: Content;
  /** When it is handed over. */
  readonly at: Date;
};

export type Outcome =
  | { readonly kind: "sent" }
  /** It was not taken now: it is tried again a few times. */
  | { readonly kind: "retry"; readonly cause: unknown }
  /** Never. */
  | { readonly kind: "rejected"; readonly cause: unknown }
  /** Nobody knows whether it was taken. */
  | { readonly kind: "unknown"; readonly cause: unknown };

/**
 * An outside channel: the way to somebody else who takes messages to people.
 *
 * At least once, unless the message's type is AT_MOST_ONCE. It is handed over again when the channel said `retry`; and when
 * what came of it is unknown: the channel said so or threw, it did not answer before the signal aborted (after ten seconds,
 * or two after the process was asked to stop), or the process was killed before the outcome was noted. Those that are
 * AT_MOST_ONCE are not, so `retry` must be said only of what was not taken. The idempotency key is the same each time: a
 * channel whose provider knows such keys must pass it on, and then a user gets the message once.
 *
 * A cause, or what it throws, may say what it likes: of it only the class, a code and the frames are logged, never its
 * text, because a provider repeats content and addresses.
 */
export type OutsideChannel = { deliver(message: Message, signal: AbortSignal): Promise<Outcome> };

/** Those that this server has. */
export type Channels = ReadonlyMap<Channel, OutsideChannel>;
