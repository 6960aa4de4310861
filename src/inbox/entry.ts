import { create, fromBinary } from "@bufbuild/protobuf";
import { timestampFromDate } from "@bufbuild/protobuf/wkt";
import type { BatchKind } from "#gen/posthorn/v1/batch_service_pb.ts";
import {
  InboxBatchSchema,
  type InboxCounts,
  InboxCountsSchema,
  type InboxEntry,
  InboxEntrySchema,
  InboxGroupSchema,
} from "#gen/posthorn/v1/inbox_service_pb.ts";
import { ContentSchema, type Priority } from "#gen/posthorn/v1/notification_pb.ts";
import type { BatchSummary } from "#src/batches/queries.ts";
import type { GroupedEntryRow } from "./grouped.ts";

/** An inbox as a whole: where it stands and what it counts. */
export type Head = {
  /** Changes when the inbox is erased and begins anew. */
  epoch: number;
  /** The newest entry's sequence; 0 before the first. */
  seq: number;
  /** Entries up to here may have been removed by retention. */
  trimmedSeq: number;
  seenSeq: number;
  unread: number;
  total: number;
  archived: number;
  snoozed: number;
};

/** One entry with what it shows, as stored. */
export type InboxEntryRow = {
  userId: string;
  notificationId: string;
  seq: number;
  type: string;
  category: string;
  priority: number;
  tags: string[] | null;
  senderId: string | null;
  arrivedAt: Date;
  readAt: Date | null;
  archivedAt: Date | null;
  snoozedUntil: Date | null;
  expiresAt: Date | null;
  /** When its sender last changed what it shows. */
  updatedAt?: Date | null | undefined;
  seen: boolean;
  confirmationRequired?: boolean | null | undefined;
  confirmedAt?: Date | null | undefined;
  /** Encoded posthorn.v1.Content; null when the notification itself is gone. */
  content: Uint8Array | null;
  /** Present when it is a batch's. */
  batch?: BatchSummary | null | undefined;
};

/** With the group that it stands for, in a grouped list. */
export function toGroupedEntry({ group, ...row }: GroupedEntryRow): InboxEntry {
  const entry = toEntry(row);
  if (group !== null) {
    const { key, firstSeq, ...counted } = group;
    entry.group = create(InboxGroupSchema, { ...counted, key: key ?? "", firstSequence: BigInt(firstSeq) });
  }
  return entry;
}

export function toEntry(row: InboxEntryRow): InboxEntry {
  const entry = create(InboxEntrySchema, {
    notificationId: row.notificationId,
    sequence: BigInt(row.seq),
    type: row.type,
    category: row.category,
    priority: row.priority as Priority,
    tags: row.tags ?? [],
    senderId: row.senderId ?? "",
    arriveTime: timestampFromDate(row.arrivedAt),
    seen: row.seen,
  });
  if (row.content !== null) entry.content = fromBinary(ContentSchema, row.content, { readUnknownFields: false });
  if (row.readAt !== null) entry.readTime = timestampFromDate(row.readAt);
  if (row.archivedAt !== null) entry.archiveTime = timestampFromDate(row.archivedAt);
  if (row.snoozedUntil !== null) entry.snoozeTime = timestampFromDate(row.snoozedUntil);
  if (row.expiresAt !== null) entry.expireTime = timestampFromDate(row.expiresAt);
  if (row.batch) entry.batch = create(InboxBatchSchema, { ...row.batch, kind: row.batch.kind as BatchKind });
  if (row.confirmationRequired) entry.confirmationRequired = true;
  if (row.updatedAt != null) entry.updateTime = timestampFromDate(row.updatedAt);
  if (row.confirmedAt != null) entry.confirmTime = timestampFromDate(row.confirmedAt);
  return entry;
}

/** What an inbox counts, as it is told. */
export type Counts = Readonly<Record<"unread" | "unseen" | "total" | "archived" | "snoozed", number>>;

/** The counts of an inbox; all zero for a user to whom nothing has arrived. */
export function countsOf(head: Omit<Head, "epoch" | "trimmedSeq"> | undefined): Counts {
  if (head === undefined) return { unread: 0, unseen: 0, total: 0, archived: 0, snoozed: 0 };
  const { unread, total, archived, snoozed } = head;
  return { unread, unseen: head.seq - head.seenSeq, total, archived, snoozed };
}

export function toCounts(head: Omit<Head, "epoch" | "trimmedSeq"> | undefined): InboxCounts {
  return create(InboxCountsSchema, countsOf(head));
}
