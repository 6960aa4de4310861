import { create, fromBinary, type MessageInitShape, toBinary } from "@bufbuild/protobuf";
import { BinaryWriter } from "@bufbuild/protobuf/wire";
import type { SpanContext } from "@opentelemetry/api";
import { LiveEvent_Kind, LiveEventSchema } from "#gen/posthorn/internal/v1/live_pb.ts";
import { Channel, Status } from "#gen/posthorn/v1/notification_pb.ts";
import {
  NotificationArrivedSchema,
  type StatusChangedSchema,
  SubscribeResponseSchema,
} from "#gen/posthorn/v1/stream_service_pb.ts";
import type { BatchSummary } from "#src/batches/queries.ts";
import { countsOf, type Head, type InboxEntryRow } from "#src/inbox/entry.ts";
import { lengthOf, number, text, writeCounts, writeEntry } from "#src/inbox/wire.ts";
import { format } from "#src/telemetry/message-traces.ts";
import { encodeCursor } from "./cursor.ts";

const EMPTY = new Uint8Array();

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
  /** Present when it is a batch's. */
  batch?: BatchSummary | null | undefined;
  /** Its recipient is asked to confirm it. */
  confirmationRequired?: boolean | null | undefined;
  /** Its trace, if it is recorded and followed to the stream. */
  trace?: SpanContext | undefined;
  /** When it was accepted, in Unix milliseconds, if its way to the stream is measured. */
  acceptedMs?: number;
  counts: { unread: number; unseen: number; total: number; archived: number; snoozed: number };
} & Partial<Pick<InboxEntryRow, "readAt" | "archivedAt" | "snoozedUntil" | "seen" | "confirmedAt" | "updatedAt">>;

/** An entry that was there before, at its new place: it came back from a snooze, or shows something else now. */
export function arrivedAgain(row: InboxEntryRow, head: Head): Arrival {
  return {
    ...row,
    epoch: head.epoch,
    content: row.content ?? EMPTY,
    tags: row.tags ?? [],
    senderId: row.senderId ?? "",
    expiresAt: row.expiresAt ?? undefined,
    counts: countsOf(head),
  };
}

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
  // On a stream, content that is gone is empty.
  writeEntry(out, ARRIVED.entry, row.content === null ? { ...row, content: EMPTY } : row);
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
  writeEntry(out, ARRIVED.entry, arrival);
  text(out, ARRIVED.cursor, encodeCursor(arrival));
  writeCounts(out, ARRIVED.counts, arrival.counts);
  out.join();
}
