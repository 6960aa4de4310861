import { create, fromBinary } from "@bufbuild/protobuf";
import { durationFromMs, timestampFromDate, timestampMs } from "@bufbuild/protobuf/wkt";
import {
  Channel,
  ContentSchema,
  type Notification,
  NotificationSchema,
  type Priority,
  type Reason,
  Status,
  type TimelineEntry,
  TimelineEntrySchema,
  VerdictKind,
  VerdictSchema,
} from "#gen/posthorn/v1/notification_pb.ts";
import { uuidTime } from "#src/store/partitions.ts";
import { channelsOf } from "./channel-bits.ts";

/** A notification as stored. */
export type NotificationRow = {
  id: string;
  userId: string;
  type: string;
  category: string;
  priority: number;
  status: number;
  reason: number;
  content: Uint8Array | null;
  channels: number;
  tags: string[] | null;
  attempts: number;
  scheduledAt: Date | null;
  expiresAt: Date | null;
  dueAt: Date | null;
  deliveredAt: Date | null;
  updatedAt: Date;
  dedupKey: string | null;
  collapseKey: string | null;
  senderId: string | null;
  fanoutId: string | null;
  batchId: string | null;
  groupKey: string | null;
  confirmedAt: Date | null;
  bypassLimits: boolean;
};

export type TimelineRow = {
  at: Date;
  status: number;
  channel: number;
  reason: number;
  actor: string | null;
  detail: Uint8Array | null;
};

export function toNotification(row: NotificationRow): Notification {
  const createdAt = uuidTime(row.id);
  const due = row.scheduledAt !== null && row.scheduledAt > createdAt ? row.scheduledAt : createdAt;
  return create(NotificationSchema, {
    id: row.id,
    userId: row.userId,
    type: row.type,
    category: row.category,
    priority: row.priority as Priority,
    status: row.status as Status,
    reason: row.reason as Reason,
    ...(row.content === null ? {} : { content: fromBinary(ContentSchema, row.content) }),
    channels: channelsOf(row.channels),
    tags: row.tags ?? [],
    createTime: timestampFromDate(createdAt),
    updateTime: timestampFromDate(row.updatedAt),
    ...(row.scheduledAt === null ? {} : { scheduleTime: timestampFromDate(row.scheduledAt) }),
    ...(row.expiresAt === null ? {} : { expireTime: timestampFromDate(row.expiresAt) }),
    ...(row.dueAt === null ? {} : { holdTime: timestampFromDate(row.dueAt) }),
    ...(row.deliveredAt === null
      ? {}
      : {
          deliverTime: timestampFromDate(row.deliveredAt),
          latency: durationFromMs(Math.max(0, row.deliveredAt.getTime() - due.getTime())),
        }),
    // Nothing changes after READ, so the last change is the reading.
    ...(row.status === Status.READ ? { readTime: timestampFromDate(row.updatedAt) } : {}),
    ...(row.confirmedAt === null ? {} : { confirmTime: timestampFromDate(row.confirmedAt) }),
    attempts: row.attempts,
    dedupKey: row.dedupKey ?? "",
    collapseKey: row.collapseKey ?? "",
    senderId: row.senderId ?? "",
    fanoutId: row.fanoutId ?? "",
    batchId: row.batchId ?? "",
    groupKey: row.groupKey ?? "",
    bypassRateLimit: row.bypassLimits,
  });
}

/**
 * The whole history: the row tells of the acceptance, the timeline of all that followed; and of whoever sent it past the
 * limits, which is where the acceptance has an actor.
 */
export function toTimeline(row: Pick<NotificationRow, "id">, rows: readonly TimelineRow[]): TimelineEntry[] {
  return [acceptedEntry(row, rows), ...rows.filter((each) => !isBypass(each)).map(toTimelineEntry)];
}

export function acceptedEntry({ id }: Pick<NotificationRow, "id">, rows: readonly TimelineRow[]): TimelineEntry {
  const actor = rows.find(isBypass)?.actor ?? "posthorn";
  return create(TimelineEntrySchema, { time: timestampFromDate(uuidTime(id)), status: Status.ACCEPTED, actor });
}

/** What is released is ACCEPTED again, by nobody. */
export function isBypass({ status, actor }: Pick<TimelineRow, "status" | "actor">): boolean {
  return status === Status.ACCEPTED && actor !== null;
}

/** Of what is stored beside the entry (posthorn.internal.v1.DecisionRecord) nothing is told here. */
const TOLD = { readUnknownFields: false };

export function toTimelineEntry(row: TimelineRow): TimelineEntry {
  const detail = row.detail === null ? create(TimelineEntrySchema) : fromBinary(TimelineEntrySchema, row.detail, TOLD);
  detail.time = timestampFromDate(row.at);
  detail.status = row.status as Status;
  detail.channel = row.channel as Channel;
  detail.reason = row.reason as Reason;
  detail.actor = row.actor ?? "posthorn";
  const hold = detail.verdicts.find((verdict) => verdict.until !== undefined)?.until;
  if (detail.rateLimit !== undefined && hold !== undefined) {
    detail.rateLimit.retryAfter = durationFromMs(Math.max(0, timestampMs(hold) - row.at.getTime()));
  }
  // A lone in-app delivery is stored without its verdict: status and channel say the same.
  if (detail.verdicts.length === 0 && row.status === Status.DELIVERED && row.channel === Channel.IN_APP) {
    detail.verdicts = [create(VerdictSchema, { channel: Channel.IN_APP, kind: VerdictKind.DELIVER })];
  }
  return detail;
}

/**
 * The latest decision's verdicts, with what outside channels and steps of an escalation have made of theirs since; and
 * the limit that holds it, if one does, or that holds it back from one of its channels.
 */
export function latestDecision(timeline: readonly TimelineEntry[]): Pick<TimelineEntry, "verdicts" | "rateLimit"> {
  const at = timeline.findLastIndex((entry) => entry.verdicts.length > 0 && !isAboutOutside(entry));
  const decision = timeline[at];
  const verdicts = new Map(decision?.verdicts.map((verdict) => [verdict.channel, verdict]));
  const limits = new Map<Channel, TimelineEntry["rateLimit"]>();
  for (const entry of timeline.slice(at + 1)) {
    for (const verdict of entry.verdicts) verdicts.set(verdict.channel, verdict);
    limits.set(entry.channel, entry.rateLimit);
  }
  const rateLimit = decision?.rateLimit ?? [...limits.values()].findLast((limit) => limit !== undefined);
  return { verdicts: [...verdicts.values()], ...(rateLimit && { rateLimit }) };
}

function isAboutOutside({ channel }: TimelineEntry): boolean {
  return channel > Channel.IN_APP;
}
