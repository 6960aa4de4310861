import { timestampFromDate } from "@bufbuild/protobuf/wkt";
import { type BatchKind, BatchState } from "#gen/posthorn/v1/batch_service_pb.ts";
import { Channel, Reason, Status } from "#gen/posthorn/v1/notification_pb.ts";
import type { Live } from "#src/stream/live.ts";
import type { BatchJoined } from "./batching.ts";
import type { Conclusion } from "./conclusion.ts";

/** Tells a user's streams what a decision made of a notification, but for its delivery, which the arrival tells. */
export function announceConclusion(
  live: Live,
  tenantId: string,
  userId: string,
  conclusion: Conclusion,
  at: Date,
): void {
  if (conclusion.status === Status.DELIVERED) return;
  const next = conclusion.dueAt ?? conclusion.batch?.flushAt;
  live.statusChanged(tenantId, userId, {
    notificationId: conclusion.id,
    status: conclusion.status,
    reason: conclusion.reason as never,
    time: timestampFromDate(at),
    ...(next === undefined ? {} : { retryTime: timestampFromDate(next) }),
  });
}

export type AnnouncedCancel = {
  id: string;
  userId: string;
  status?: Status;
  reason?: Reason;
  /** The outside channels that one of which something has come goes to no more. */
  channels?: readonly Channel[];
  /** Its escalation has ended with that. */
  escalated?: boolean;
  /** Why it goes there no more. */
  why?: Reason;
};

/** Tells users' streams that notifications to them were cancelled, or for those channels that had not got them. */
export function announceCancelled(
  live: Live,
  tenantId: string,
  notifications: readonly AnnouncedCancel[],
  at: Date,
): void {
  const time = timestampFromDate(at);
  for (const { id: notificationId, userId, ...became } of notifications) {
    const { status = Status.CANCELLED, reason = Reason.CANCELLED, channels = [], why = Reason.CANCELLED } = became;
    if (status > Status.READ) live.statusChanged(tenantId, userId, { notificationId, status, reason, time });
    else
      for (const channel of channels)
        live.statusChanged(tenantId, userId, { notificationId, status, channel, reason: why, time });
  }
}

/** Tells a user's streams that a notification waits for another time than before. */
export function announceScheduled(
  live: Live,
  tenantId: string,
  { id: notificationId, userId, dueAt }: { id: string; userId: string; dueAt: Date },
  at: Date,
): void {
  live.statusChanged(tenantId, userId, {
    ...{ notificationId, status: Status.SCHEDULED, reason: Reason.SCHEDULED },
    time: timestampFromDate(at),
    retryTime: timestampFromDate(dueAt),
  });
}

/** Tells a user's streams that they have read notifications. */
export function announceRead(live: Live, tenantId: string, userId: string, ids: readonly string[], at: Date): void {
  const read = { status: Status.READ, channel: Channel.IN_APP, time: timestampFromDate(at) };
  for (const notificationId of ids) live.statusChanged(tenantId, userId, { notificationId, ...read });
}

/** Tells a user's streams that a notification has been confirmed, and by that read if it was not. */
export function announceConfirmed(
  live: Live,
  tenantId: string,
  userId: string,
  { notificationId, status }: { notificationId: string; status: Status },
  at: Date,
): void {
  const time = timestampFromDate(at);
  live.statusChanged(tenantId, userId, { notificationId, status, time, confirmTime: time });
}

/** Tells a user's streams that a batch has opened or grown. */
export function announceBatch(
  live: Live,
  tenantId: string,
  { id, userId, kind, state, size, flushAt }: BatchJoined,
): void {
  live.batchProgress(tenantId, userId, { batchId: id, kind, state, size, flushTime: timestampFromDate(flushAt) });
}

/** What an announced batch was made into. */
type Closed = {
  id: string;
  userId: string;
  kind: BatchKind;
  size: number;
  notificationId: string | undefined;
  ended: readonly { id: string; status: Status; reason: Reason }[];
};

/** Tells a user's streams that a batch has closed, and what of it has ended with that. */
export function announceClosed(live: Live, tenantId: string, batch: Closed, at: Date): void {
  const time = timestampFromDate(at);
  const { id: batchId, userId, kind, size, notificationId = "", ended } = batch;
  live.batchProgress(tenantId, userId, {
    batchId,
    kind,
    state: BatchState.CLOSED,
    size,
    flushTime: time,
    notificationId,
  });
  announceEnded(live, tenantId, userId, ended, at);
}

/** Tells a user's streams that a batch that was due stays open, and what of it has ended all the same. */
export function announceWaiting(
  live: Live,
  tenantId: string,
  { ended, ...batch }: BatchJoined & Pick<Closed, "ended">,
  at: Date,
): void {
  announceBatch(live, tenantId, batch);
  announceEnded(live, tenantId, batch.userId, ended, at);
}

/** Tells users' streams that batches which the hourly cap has refused are no more, and where their members have gone. */
export function announcePoured(
  live: Live,
  tenantId: string,
  batches: readonly Pick<Closed, "id" | "userId" | "kind" | "ended">[],
  { digests, members }: { digests: readonly BatchJoined[]; members: readonly Moved[] },
  at: Date,
): void {
  const time = timestampFromDate(at);
  for (const { id: batchId, userId, kind, ended } of batches) {
    live.batchProgress(tenantId, userId, { batchId, kind, state: BatchState.DISSOLVED, flushTime: time });
    announceEnded(live, tenantId, userId, ended, at);
  }
  for (const digest of digests) announceBatch(live, tenantId, digest);
  for (const { id: notificationId, userId, status, reason, until } of members) {
    if (status === Status.ACCEPTED) continue;
    const next = until && { retryTime: timestampFromDate(until) };
    live.statusChanged(tenantId, userId, { notificationId, status, reason: reason as Reason, time, ...next });
  }
}

type Moved = { id: string; userId: string; status: Status; reason: number; until?: Date };

function announceEnded(live: Live, tenantId: string, userId: string, ended: Closed["ended"], at: Date): void {
  const time = timestampFromDate(at);
  for (const { id, status, reason } of ended)
    live.statusChanged(tenantId, userId, { notificationId: id, status, reason, time });
}

/** Tells a user's streams that an outside channel has taken a notification. */
export function announceDelivered(
  live: Live,
  tenantId: string,
  { id: notificationId, userId, channel }: { id: string; userId: string; channel: number },
  at: Date,
): void {
  const time = timestampFromDate(at);
  live.statusChanged(tenantId, userId, { notificationId, status: Status.DELIVERED, channel: channel as Channel, time });
}

/** Tells a user's streams that a notification waits for its turn with an outside channel; where it stands has not changed. */
export function announceHeld(
  live: Live,
  tenantId: string,
  held: { id: string; userId: string; channel: number; status: number; reason: Reason; until: Date },
  at: Date,
): void {
  const { id: notificationId, userId, reason } = held;
  live.statusChanged(tenantId, userId, {
    ...{ notificationId, reason },
    status: held.status as Status,
    channel: held.channel as Channel,
    time: timestampFromDate(at),
    retryTime: timestampFromDate(held.until),
  });
}

/** Tells a user's streams that a notification goes to an outside channel no more, and goes on. */
export function announceGone(
  live: Live,
  tenantId: string,
  gone: { id: string; userId: string; channel: number; status: number; reason: Reason },
  at: Date,
): void {
  const { id: notificationId, userId, reason } = gone;
  const [status, channel] = [gone.status as Status, gone.channel as Channel];
  live.statusChanged(tenantId, userId, { notificationId, status, channel, reason, time: timestampFromDate(at) });
}

/** Tells a user's streams that no channel takes a notification. */
export function announceLost(
  live: Live,
  tenantId: string,
  { id: notificationId, userId, status, reason }: { id: string; userId: string; status: Status; reason: Reason },
  at: Date,
): void {
  live.statusChanged(tenantId, userId, { notificationId, status, reason, time: timestampFromDate(at) });
}
