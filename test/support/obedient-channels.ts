import { afterEach } from "vitest";
import { Channel } from "#gen/posthorn/v1/notification_pb.ts";
import type { Channels, Message, Outcome } from "#src/channels/channel.ts";

export type Answer = (message: Message) => Promise<Outcome>;

export const SENT: Answer = async () => ({ kind: "sent" });
export const BUSY: Answer = async () => ({ kind: "retry", cause: "busy" });

/** Outside channels that answer as they are told, and take everything when nobody has told them in this test. */
export function obedientChannels() {
  const given: Message[] = [];
  let answer = SENT;
  afterEach(() => {
    answer = SENT;
  });
  const deliver = (message: Message) => {
    given.push(message);
    return answer(message);
  };
  return {
    channels: (): Channels =>
      new Map([Channel.EMAIL, Channel.SMS, Channel.PUSH].map((channel) => [channel, { deliver }])),
    answerWith(next: Answer) {
      answer = next;
    },
    /** What they were given, in that order. */
    given,
    /** The channels that were given it. */
    of: (id: string) => given.filter(({ notificationId }) => notificationId === id).map(({ channel }) => channel),
  };
}
