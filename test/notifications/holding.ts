import { Channel, Reason, Status } from "#gen/posthorn/v1/notification_pb.ts";
import { escalating, seconds } from "../escalation/setup.ts";
import type { TestPlatform } from "../support/platform.ts";

const { IN_APP, SMS, PUSH } = Channel;

/** Notifications that the limit of a channel holds until tomorrow, on a node whose clock `pass` puts forward. */
export function holding(node: Pick<TestPlatform, "key">, pass: (ms: number) => void) {
  const { newUser, send, told, reached, prefer } = escalating(node);
  return {
    /** Whatever is due within that time has been handed over, or left, when this is. */
    async on(ms: number): Promise<void> {
      const escalation = { steps: [{ channel: PUSH, after: seconds(ms / 1000) }] };
      const id = await send(`${newUser()}-on`, { channels: [IN_APP], escalation });
      pass(ms);
      await told(id, ({ step }) => step === 1);
    },
    /** A user who has had their text message of the day. */
    async satisfied(user: string): Promise<string> {
      await prefer(user, { channelLimits: { smsPerDay: 1 } });
      await reached(await send(user, { channels: [SMS] }), Status.DELIVERED);
      return user;
    },
    /** One of theirs that waits for tomorrow. */
    async held(user: string, more: Parameters<typeof send>[1] = {}): Promise<string> {
      const id = await send(user, { channels: [SMS], ...more });
      await told(id, ({ reason }) => reason === Reason.CHANNEL_DAY_LIMIT);
      return id;
    },
  };
}
