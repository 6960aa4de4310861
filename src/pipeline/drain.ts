import type { ConsumerMessages, Subscription } from "nats";

/** How long a message that a stopping worker asked for may be on its way to it. */
const LAST_PULLS_MS = 100;

/**
 * Ends taking so that nothing gets lost on the way: what the server sends to a subscription that is gone is given out
 * again only when its ack_wait has passed, half a minute later. So: ask for no more, take what still comes, and then
 * close. The client has no way to say so, hence the reach for its inner parts; without them it is a plain close.
 *
 * What was taken is finished rather than given back: NATS 2.9 loses a message that comes back while nothing but the
 * requests of workers that have gone waits for it, again until its ack_wait has passed.
 */
export async function drain(messages: ConsumerMessages): Promise<void> {
  Reflect.set(messages, "refilling", false);
  const subscription = Reflect.get(messages, "sub") as Subscription | undefined;
  await new Promise((done) => setTimeout(done, LAST_PULLS_MS));
  await subscription?.drain().catch(() => undefined);
  await messages.close();
}
