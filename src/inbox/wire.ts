import type { DescField } from "@bufbuild/protobuf";
import { BinaryWriter, WireType } from "@bufbuild/protobuf/wire";
import {
  InboxBatchSchema,
  InboxCountsSchema,
  InboxEntrySchema,
  InboxGroupSchema,
  ListEntriesResponseSchema,
} from "#gen/posthorn/v1/inbox_service_pb.ts";
import type { BatchSummary } from "#src/batches/queries.ts";
import type { Counts, InboxEntryRow } from "./entry.ts";
import type { GroupedEntryRow, GroupRow } from "./grouped.ts";

// Written by hand and into one buffer, because it is done for every notification and every entry of a page: with a message
// object and a buffer that grows at each level it was an eighth of all the work of delivering. The content is stored encoded
// and goes in as it is. That the library reads back just what it would have written itself is tested, field by field.

const ENTRY = InboxEntrySchema.field;
const BATCH = InboxBatchSchema.field;
const COUNTS = InboxCountsSchema.field;
const GROUP = InboxGroupSchema.field;
const LIST = ListEntriesResponseSchema.field;

/** An encoded ListEntriesResponse. */
export function encodeEntries(rows: readonly GroupedEntryRow[], nextPageToken: string, counts: Counts): Uint8Array {
  const out = new BinaryWriter();
  for (const row of rows) writeEntry(out, LIST.entries, row, row.group);
  text(out, LIST.nextPageToken, nextPageToken);
  writeCounts(out, LIST.counts, counts);
  return out.finish();
}

/** An arrival or a row; what is absent in one of them is null or undefined in the other. */
type Entry = Partial<Omit<InboxEntryRow, "tags" | "expiresAt" | "batch">> &
  Pick<InboxEntryRow, "notificationId" | "seq" | "type" | "category" | "priority" | "arrivedAt" | "content"> & {
    tags: readonly string[] | null;
    expiresAt: Date | null | undefined;
    batch?: BatchSummary | null | undefined;
  };

/** An InboxEntry as `field`, with the group that it stands for, if any. */
export function writeEntry(out: BinaryWriter, field: DescField, entry: Entry, group: GroupRow | null = null): void {
  out.uint32(lengthOf(field)).fork();
  text(out, ENTRY.notificationId, entry.notificationId);
  number(out, ENTRY.sequence, entry.seq);
  text(out, ENTRY.type, entry.type);
  text(out, ENTRY.category, entry.category);
  number(out, ENTRY.priority, entry.priority);
  if (entry.content !== null) out.uint32(lengthOf(ENTRY.content)).bytes(entry.content);
  for (const tag of entry.tags ?? []) out.uint32(lengthOf(ENTRY.tags)).string(tag);
  text(out, ENTRY.senderId, entry.senderId ?? "");
  time(out, ENTRY.arriveTime, entry.arrivedAt);
  time(out, ENTRY.readTime, entry.readAt);
  number(out, ENTRY.seen, entry.seen === true ? 1 : 0);
  time(out, ENTRY.archiveTime, entry.archivedAt);
  time(out, ENTRY.snoozeTime, entry.snoozedUntil);
  time(out, ENTRY.expireTime, entry.expiresAt);
  if (group !== null) writeGroup(out, group);
  if (entry.batch != null) writeBatch(out, entry.batch);
  number(out, ENTRY.confirmationRequired, entry.confirmationRequired === true ? 1 : 0);
  time(out, ENTRY.confirmTime, entry.confirmedAt);
  time(out, ENTRY.updateTime, entry.updatedAt);
  out.join();
}

function writeGroup(out: BinaryWriter, group: GroupRow): void {
  out.uint32(lengthOf(ENTRY.group)).fork();
  text(out, GROUP.key, group.key ?? "");
  number(out, GROUP.size, group.size);
  number(out, GROUP.unread, group.unread);
  for (const sender of group.senders) out.uint32(lengthOf(GROUP.senders)).string(sender);
  number(out, GROUP.senderCount, group.senderCount);
  number(out, GROUP.firstSequence, group.firstSeq);
  out.join();
}

function writeBatch(out: BinaryWriter, batch: BatchSummary): void {
  out.uint32(lengthOf(ENTRY.batch)).fork();
  text(out, BATCH.id, batch.id);
  number(out, BATCH.kind, batch.kind);
  number(out, BATCH.size, batch.size);
  for (const id of batch.notificationIds) out.uint32(lengthOf(BATCH.notificationIds)).string(id);
  out.join();
}

/** InboxCounts as `field`. */
export function writeCounts(out: BinaryWriter, field: DescField, counts: Counts): void {
  out.uint32(lengthOf(field)).fork();
  number(out, COUNTS.unread, counts.unread);
  number(out, COUNTS.unseen, counts.unseen);
  number(out, COUNTS.total, counts.total);
  number(out, COUNTS.archived, counts.archived);
  number(out, COUNTS.snoozed, counts.snoozed);
  out.join();
}

export function text(out: BinaryWriter, field: DescField, value: string): void {
  if (value !== "") out.uint32(lengthOf(field)).string(value);
}

/** For whole numbers, enums and booleans; none of ours is negative. */
export function number(out: BinaryWriter, field: DescField, value: number): void {
  if (value === 0) return;
  varint(out.uint32((field.number << 3) | WireType.Varint), value);
}

function time(out: BinaryWriter, field: DescField, date: Date | null | undefined): void {
  if (date == null) return;
  const ms = date.getTime();
  const seconds = Math.floor(ms / 1000);
  out.uint32(lengthOf(field)).fork();
  if (seconds !== 0) varint(out.uint32((1 << 3) | WireType.Varint), seconds);
  const nanos = (ms - seconds * 1000) * 1_000_000;
  if (nanos !== 0) out.uint32((2 << 3) | WireType.Varint).uint32(nanos);
  out.join();
}

function varint(out: BinaryWriter, value: number): void {
  // What fits into 32 bits is the same on the wire, and needs no bigint.
  if (value >= 0 && value <= 0xffffffff) out.uint32(value);
  else out.int64(value);
}

export function lengthOf(field: DescField): number {
  return (field.number << 3) | WireType.LengthDelimited;
}
