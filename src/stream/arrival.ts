import { create, type DescField, fromBinary, type MessageInitShape, toBinary } from "@bufbuild/protobuf";
import { BinaryWriter, WireType } from "@bufbuild/protobuf/wire";
import type { SpanContext } from "@opentelemetry/api";
import { LiveEvent_Kind, LiveEventSchema } from "#gen/posthorn/internal/v1/live_pb.ts";
import { InboxCountsSchema, InboxEntrySchema } from "#gen/posthorn/v1/inbox_service_pb.ts";
import { Channel, Status } from "#gen/posthorn/v1/notification_pb.ts";
import {
  NotificationArrivedSchema,
  type StatusChangedSchema,
  SubscribeResponseSchema,
} from "#gen/posthorn/v1/stream_service_pb.ts";
import type { InboxEntryRow } from "#src/inbox/entry.ts";
import { format } from "#src/telemetry/message-traces.ts";
import { encodeCursor } from "./cursor.ts";

/** An entry that arrived in an inbox, with its inbox after it. */
export type Arrival = {
  notificationId: string;
  userId: string;
  seq: number;
  epoch: number;
  type: string;
  category: string;
  priority: number;
  /** Encoded posthorn.v1.Content. */
  content: Uint8Array;
  tags: readonly string[];
  senderId: string;
  arrivedAt: Date;
  expiresAt: Date | undefined;
  /** Its recipient is asked to confirm it. */
  confirmationRequired?: boolean | null | undefined;
  /** Its trace, if it is recorded and followed to the stream. */
  trace?: SpanContext | undefined;
  /** When it was accepted, in Unix milliseconds, if its way to the stream is measured. */
  acceptedMs?: number;
  counts: { unread: number; unseen: number; total: number; archived: number; snoozed: number };
};

// Written by hand and into one buffer, because it is done for every notification: with a message object and a buffer that
// grows at each level it was an eighth of all the work. The content is stored encoded and goes in as it is. That the
// library reads back just what it would have written itself is tested, field by field.

const ENTRY = InboxEntrySchema.field;
const COUNTS = InboxCountsSchema.field;
const ARRIVED = NotificationArrivedSchema.field;
const LIVE = LiveEventSchema.field;
const RESPONSE = SubscribeResponseSchema.field;

/** Encodes the LiveEvent that tells a user's streams of an arrival. `out` is empty before and after. */
export function encodeLiveArrival(arrival: Arrival, delivered: boolean, out: BinaryWriter): Uint8Array {
  try {
    number(out, LIVE.kind, LiveEvent_Kind.ARRIVAL);
    number(out, LIVE.sequence, arrival.seq);
    number(out, LIVE.epoch, arrival.epoch);
    text(out, LIVE.type, arrival.type);
    text(out, LIVE.category, arrival.category);
    number(out, LIVE.priority, arrival.priority);
    for (const tag of arrival.tags) out.uint32(lengthOf(LIVE.tags)).string(tag);
    number(out, LIVE.delivered, delivered ? 1 : 0);
    if (arrival.acceptedMs !== undefined) number(out, LIVE.acceptedMs, arrival.acceptedMs);
    if (arrival.trace !== undefined) text(out, LIVE.traceparent, format(arrival.trace));
    out.uint32(lengthOf(LIVE.response)).fork();
    writeArrival(out, arrival);
    return out.join().finish();
  } catch (error) {
    // What was written of it must not begin somebody else's.
    out.finish();
    throw error;
  }
}

/** Encodes the same from history, as it stands now: it may have been read, archived or snoozed since. */
export function encodeReplayed(row: InboxEntryRow, epoch: number): Uint8Array {
  const out = new BinaryWriter();
  out.uint32(lengthOf(RESPONSE.notification)).fork();
  writeEntry(out, row);
  text(out, ARRIVED.cursor, encodeCursor({ epoch, seq: row.seq }));
  number(out, ARRIVED.replayed, 1);
  return out.join().finish();
}

/** StatusChanged for a delivery, out of the encoded arrival: made only where a stream asked for statuses. */
export function encodeDelivered(arrival: Uint8Array): Uint8Array {
  const { event } = fromBinary(SubscribeResponseSchema, arrival);
  const entry = event.case === "notification" ? event.value.entry : undefined;
  const value: MessageInitShape<typeof StatusChangedSchema> = {
    notificationId: entry?.notificationId ?? "",
    status: Status.DELIVERED,
    channel: Channel.IN_APP,
    ...(entry?.arriveTime === undefined ? {} : { time: entry.arriveTime }),
  };
  return toBinary(SubscribeResponseSchema, create(SubscribeResponseSchema, { event: { case: "status", value } }));
}

/** SubscribeResponse{notification} of an arrival. */
function writeArrival(out: BinaryWriter, arrival: Arrival): void {
  out.uint32(lengthOf(RESPONSE.notification)).fork();
  writeEntry(out, arrival);
  text(out, ARRIVED.cursor, encodeCursor(arrival));
  const { unread, unseen, total, archived, snoozed } = arrival.counts;
  out.uint32(lengthOf(ARRIVED.counts)).fork();
  number(out, COUNTS.unread, unread);
  number(out, COUNTS.unseen, unseen);
  number(out, COUNTS.total, total);
  number(out, COUNTS.archived, archived);
  number(out, COUNTS.snoozed, snoozed);
  out.join().join();
}

/** An arrival or a row; what is absent in one of them is null or undefined in the other. */
type Entry = Partial<Omit<InboxEntryRow, "tags" | "expiresAt">> &
  Pick<InboxEntryRow, "notificationId" | "seq" | "type" | "category" | "priority" | "arrivedAt"> & {
    tags: readonly string[] | null;
    expiresAt: Date | null | undefined;
  };

function writeEntry(out: BinaryWriter, entry: Entry): void {
  out.uint32(lengthOf(ARRIVED.entry)).fork();
  text(out, ENTRY.notificationId, entry.notificationId);
  number(out, ENTRY.sequence, entry.seq);
  text(out, ENTRY.type, entry.type);
  text(out, ENTRY.category, entry.category);
  number(out, ENTRY.priority, entry.priority);
  out.uint32(lengthOf(ENTRY.content));
  if (entry.content == null) out.uint32(0);
  else out.bytes(entry.content);
  for (const tag of entry.tags ?? []) out.uint32(lengthOf(ENTRY.tags)).string(tag);
  text(out, ENTRY.senderId, entry.senderId ?? "");
  time(out, ENTRY.arriveTime, entry.arrivedAt);
  time(out, ENTRY.readTime, entry.readAt);
  number(out, ENTRY.seen, entry.seen === true ? 1 : 0);
  time(out, ENTRY.archiveTime, entry.archivedAt);
  time(out, ENTRY.snoozeTime, entry.snoozedUntil);
  time(out, ENTRY.expireTime, entry.expiresAt);
  number(out, ENTRY.confirmationRequired, entry.confirmationRequired === true ? 1 : 0);
  time(out, ENTRY.confirmTime, entry.confirmedAt);
  out.join();
}

function text(out: BinaryWriter, field: DescField, value: string): void {
  if (value !== "") out.uint32(lengthOf(field)).string(value);
}

/** For whole numbers, enums and booleans; none of ours is negative. */
function number(out: BinaryWriter, field: DescField, value: number): void {
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

function lengthOf(field: DescField): number {
  return (field.number << 3) | WireType.LengthDelimited;
}
