import { expect, test } from "vitest";
import { Channel } from "#gen/posthorn/v1/notification_pb.ts";
import { channelSlots } from "#src/pipeline/deliver/channel-slots.ts";

const both = () => channelSlots([Channel.EMAIL, Channel.SMS], 2);
/** Whether it has resolved by now. */
const isOver = (promise: Promise<void> | undefined) =>
  Promise.race([promise?.then(() => true), new Promise<boolean>((resolve) => setImmediate(resolve, false))]);

test("a channel that has none left takes none of another's", () => {
  const slots = both();
  slots.take(Channel.EMAIL);
  slots.take(Channel.EMAIL);
  expect(slots.free()).toEqual([{ channel: Channel.SMS, size: 2 }]);
  slots.take(Channel.SMS);
  slots.give(Channel.EMAIL);
  expect(slots.free()).toEqual([
    { channel: Channel.EMAIL, size: 1 },
    { channel: Channel.SMS, size: 1 },
  ]);
});

test("room is told of as soon as a channel has it for which more is due, and of no other", async () => {
  const slots = both();
  for (const channel of [Channel.EMAIL, Channel.EMAIL, Channel.SMS]) slots.take(channel);
  slots.filled(Channel.SMS, false);
  expect(slots.roomForMore()).toBeUndefined();
  slots.filled(Channel.EMAIL, true);
  const room = slots.roomForMore();
  slots.give(Channel.SMS);
  expect(await isOver(room)).toBe(false);
  slots.give(Channel.EMAIL);
  expect(await isOver(room)).toBe(true);
});

test("room that came before anybody asked is not missed", async () => {
  const slots = both();
  slots.take(Channel.EMAIL);
  slots.take(Channel.EMAIL);
  slots.give(Channel.EMAIL);
  slots.filled(Channel.EMAIL, true);
  expect(await isOver(slots.roomForMore())).toBe(true);
  slots.filled(Channel.EMAIL, false);
  expect(slots.roomForMore()).toBeUndefined();
});
