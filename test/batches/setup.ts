import type { DescMessage, MessageInitShape } from "@bufbuild/protobuf";
import { type Batch, BatchState } from "#gen/posthorn/v1/batch_service_pb.ts";
import type { Notification, Status } from "#gen/posthorn/v1/notification_pb.ts";
import type { SendRequestSchema } from "#gen/posthorn/v1/send_service_pb.ts";
import type { BatchRuleSchema, NotificationTypeSchema } from "#gen/posthorn/v1/type_service_pb.ts";
import type { TestPlatform } from "../support/platform.ts";
import { until } from "../support/until.ts";

export const MINUTE = 60_000;
export const HOUR = 60 * MINUTE;

/** A clock that a test can set forward, and back. */
export function steppedClock(): { clock: () => Date; step(ms: number): void } {
  let shift = 0;
  return {
    clock: () => new Date(Date.now() + shift),
    step(ms) {
      shift += ms;
    },
  };
}

type Init<Desc extends DescMessage> = Exclude<MessageInitShape<Desc>, { $typeName: string }>;

/** What tests of batches do with a node. */
export function batching(node: TestPlatform) {
  const { key } = node;
  let made = 0;
  const newType = async (
    batching: MessageInitShape<typeof BatchRuleSchema> | undefined,
    more: Partial<Init<typeof NotificationTypeSchema>> = {},
  ) => {
    const name = `type_${++made}`;
    await key.types.createType({ type: { key: name, ...(batching && { batching }), ...more } });
    return name;
  };
  const get = async (id: string): Promise<Notification> => {
    const { notification } = await key.send.getNotification({ id });
    if (notification === undefined) throw new Error("no notification");
    return notification;
  };
  const timeline = async (id: string) => (await key.send.getNotification({ id })).timeline;
  const send = async (
    userId: string,
    type: string,
    title: string,
    more: Partial<Init<typeof SendRequestSchema>> = {},
  ) => {
    const { results } = await key.send.send({
      to: { userIds: [userId] },
      type,
      content: { title },
      waitForDecision: { seconds: 10n },
      ...more,
    });
    const [result] = results;
    if (result === undefined) throw new Error("no result");
    return result;
  };
  const batchOf = async (id: string): Promise<Batch> => {
    const { batch } = await key.batches.getBatch({ id });
    if (batch === undefined) throw new Error("no batch");
    return batch;
  };
  return {
    newType,
    get,
    timeline,
    send,
    batchOf,
    newUser: () => `user-${++made}`,
    closed: (id: string) =>
      until(
        () => batchOf(id),
        ({ state }) => state === BatchState.CLOSED,
      ),
    reached: (id: string, status: Status) =>
      until(
        () => get(id),
        (notification) => notification.status === status,
      ),
    entries: async (userId: string) => (await key.inbox.listEntries({ userId })).entries,
    prefer: (userId: string, preferences: object) =>
      key.preferences.updatePreferences({ userId, preferences, reason: "a test" }),
  };
}
