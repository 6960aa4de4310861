import { TOPIC_TAG } from "#src/stream/filter.ts";

/** What these begin says where a notification comes from: it is not for senders to say, nor to take away. */
export const SCHEDULE_TAG = "schedule:";
const DEADLINE_TAG = "deadline:";
export const OWN_TAGS = [TOPIC_TAG, SCHEDULE_TAG, DEADLINE_TAG] as const;

export const scheduleTag = (key: string) => `${SCHEDULE_TAG}${key}`;
export const deadlineTag = (key: string) => `${DEADLINE_TAG}${key}`;

/** Whether a notification with these tags is a reminder of a deadline. */
export const isReminder = (tags: readonly string[] | undefined) =>
  tags?.some((tag) => tag.startsWith(DEADLINE_TAG)) ?? false;
