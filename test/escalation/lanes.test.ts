import { expect, test } from "vitest";
import { Channel, Priority, Status } from "#gen/posthorn/v1/notification_pb.ts";
import type { Channels, Message, Outcome } from "#src/channels/channel.ts";
import { MINUTE, steppedClock } from "../batches/setup.ts";
import { platformOfFile } from "../support/platform.ts";
import { testServices } from "../support/services.ts";
import { until } from "../support/until.ts";
import { escalating, seconds } from "./setup.ts";

// Channels that remember what they were given, one of which answers when it is told to.
const { clock, step: pass } = steppedClock();
const taken: Message[] = [];
const answers = new Map<string, PromiseWithResolvers<Outcome>>();
let slow: Channel | undefined;
const channels = (): Channels =>
  new Map(
    [Channel.EMAIL, Channel.SMS, Channel.PUSH].map((channel) => [
      channel,
      {
        async deliver(message: Message): Promise<Outcome> {
          taken.push(message);
          if (channel !== slow) return { kind: "sent" };
          const answer = Promise.withResolvers<Outcome>();
          answers.set(message.notificationId, answer);
          return answer.promise;
        },
      },
    ]),
  );
const node = await platformOfFile({ services: await testServices(), clock, between: { channels } });
const { newUser, send, reached } = escalating(node);

/** More than any claim may take. */
const MANY = 80;

const on = (channel: Channel) => taken.filter((message) => message.channel === channel);
const many = (channel: Channel, priority: Priority) =>
  Promise.all(Array.from({ length: MANY }, () => send(newUser(), { channels: [channel], priority })));
const answerAll = (ids: readonly string[]) =>
  Promise.all(
    ids.map((id) =>
      until(
        async () => answers.get(id)?.resolve({ kind: "sent" }),
        () => answers.has(id),
      ),
    ),
  );

test("a channel that hangs keeps no other waiting: its CRITICAL step is taken while the first has most before it", async () => {
  const urgent = await send(newUser(), {
    priority: Priority.CRITICAL,
    escalation: { steps: [{ channel: Channel.SMS, after: seconds(60) }] },
  });
  slow = Channel.EMAIL;
  const ids = await many(Channel.EMAIL, Priority.HIGH);
  pass(MINUTE);
  await until(
    async () => on(Channel.SMS),
    (given) => given.some(({ notificationId }) => notificationId === urgent),
  );
  expect(on(Channel.EMAIL).length).toBeLessThan(MANY);
  await answerAll(ids);
  await Promise.all(ids.map((id) => reached(id, Status.DELIVERED)));
});

test("of one channel the most urgent is taken first, however long others have waited", async () => {
  slow = Channel.PUSH;
  const ids = await many(Channel.PUSH, Priority.LOW);
  const [first] = await until(
    async () => on(Channel.PUSH),
    (given) => given.length > 0,
  );
  const urgent = await send(newUser(), { channels: [Channel.PUSH], priority: Priority.CRITICAL });
  answers.get(first?.notificationId ?? "")?.resolve({ kind: "sent" });
  await until(
    async () => answers.has(urgent),
    (given) => given,
  );
  expect(on(Channel.PUSH).length).toBeLessThan(MANY);
  await answerAll([urgent, ...ids]);
  await Promise.all([urgent, ...ids].map((id) => reached(id, Status.DELIVERED)));
});

test("of more than a channel has room for each is taken once", async () => {
  slow = undefined;
  const ids = await many(Channel.EMAIL, Priority.NORMAL);
  await Promise.all(ids.map((id) => reached(id, Status.DELIVERED)));
  const given = Map.groupBy(on(Channel.EMAIL), ({ notificationId }) => notificationId);
  for (const id of ids) expect(given.get(id)).toHaveLength(1);
});
