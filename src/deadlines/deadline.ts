import { create, fromBinary } from "@bufbuild/protobuf";
import { timestampFromDate } from "@bufbuild/protobuf/wkt";
import { ContentSchema, type Priority } from "#gen/posthorn/v1/notification_pb.ts";
import { type Deadline, DeadlineSchema, ReminderSchema } from "#gen/posthorn/v1/schedule_service_pb.ts";
import type { deadlines } from "#src/store/schema/schedules.ts";
import { toOffsets } from "./offsets.ts";
import type { Reminder } from "./plan.ts";

export type DeadlineRow = Omit<typeof deadlines.$inferSelect, "reminders"> & { reminders: Reminder[] };

/** What a caller says about a deadline. */
export type DeadlineDefinition = Pick<
  DeadlineRow,
  "userId" | "key" | "type" | "at" | "content" | "priority" | "offsetsMs"
>;

export function toDeadline(row: DeadlineRow): Deadline {
  return create(DeadlineSchema, {
    userId: row.userId,
    key: row.key,
    type: row.type,
    time: timestampFromDate(row.at),
    content: fromBinary(ContentSchema, row.content),
    priority: row.priority as Priority,
    ...(row.offsetsMs === null ? {} : { reminderOffsets: toOffsets(row.offsetsMs) }),
    reminders: row.reminders.map(({ dueAt, id }) =>
      create(ReminderSchema, { time: timestampFromDate(new Date(dueAt)), notificationId: id }),
    ),
    revision: row.revision,
    createTime: timestampFromDate(row.createdAt),
    updateTime: timestampFromDate(row.updatedAt),
  });
}

/** Whether a deadline already is what is asked for. */
export function isSame(row: DeadlineDefinition, wanted: DeadlineDefinition): boolean {
  return (
    row.at.getTime() === wanted.at.getTime() &&
    Buffer.from(row.content).equals(wanted.content) &&
    isSameKind(row, wanted) &&
    JSON.stringify(row.offsetsMs) === JSON.stringify(wanted.offsetsMs)
  );
}

/** Whether its reminders can stay the notifications they are. */
export function isSameKind(row: DeadlineDefinition, wanted: DeadlineDefinition): boolean {
  return row.type === wanted.type && row.priority === wanted.priority;
}
