import { create, fromBinary, type MessageInitShape, toBinary } from "@bufbuild/protobuf";
import { BinaryWriter, WireType } from "@bufbuild/protobuf/wire";
import { timestampFromDate } from "@bufbuild/protobuf/wkt";
import { LiveEvent_Kind as Kind, LiveEventSchema } from "#gen/posthorn/internal/v1/live_pb.ts";
import { type InboxCounts, InboxCountsSchema, InboxEntrySchema } from "#gen/posthorn/v1/inbox_service_pb.ts";
import { Channel, type Priority, Status } from "#gen/posthorn/v1/notification_pb.ts";
import {
  type Announcement,
  type InboxChangedSchema,
  NotificationArrivedSchema,
  type StatusChangedSchema,
  SubscribeResponseSchema,
} from "#gen/posthorn/v1/stream_service_pb.ts";
import type { Broker } from "#src/broker/broker.ts";
import type { InboxEntryRow } from "#src/inbox/entry.ts";
import { live } from "#src/pipeline/flow.ts";
import { encodeCursor } from "./cursor.ts";
import { topicTag } from "./filter.ts";

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
  counts: { unread: number; unseen: number; total: number; archived: number; snoozed: number };
};

/**
 * Tells the streams of a user, wherever they are connected, what happened. Call after the commit. At most once: a hub
 * that misses an arrival notices the gap and reads the inbox.
 */
export type Live = {
  /** `delivered`: streams that asked for statuses are told DELIVERED with it, so nobody needs to say so besides. */
  arrived(tenantId: string, arrivals: readonly Arrival[], delivered: boolean): void;
  statusChanged(tenantId: string, userId: string, change: MessageInitShape<typeof StatusChangedSchema>): void;
  inboxChanged(tenantId: string, userId: string, change: MessageInitShape<typeof InboxChangedSchema>): void;
  preferencesChanged(tenantId: string, userId: string, changedFields: string[]): void;
  membershipChanged(tenantId: string, userIds: readonly string[]): void;
  announce(audience: Audience, announcement: Announcement): void;
};

export type Audience =
  | { kind: "user"; tenantId: string; userId: string }
  | { kind: "topic"; tenantId: string; topic: string }
  | { kind: "tenant"; tenantId: string }
  | { kind: "all" };

export function livePublisher(broker: Broker): Live {
  const { namespace } = broker;
  const publish = (subject: string, event: MessageInitShape<typeof LiveEventSchema>) => {
    if (broker.nats.isClosed()) return;
    broker.nats.publish(subject, toBinary(LiveEventSchema, create(LiveEventSchema, event)));
  };
  const notice = (tenantId: string, userId: string, kind: Kind, event: Event) =>
    publish(live.user(namespace, tenantId, userId), {
      kind,
      response: toBinary(SubscribeResponseSchema, create(SubscribeResponseSchema, { event })),
    });
  return {
    arrived(tenantId, arrivals, delivered) {
      for (const arrival of arrivals) {
        publish(live.user(namespace, tenantId, arrival.userId), {
          kind: Kind.ARRIVAL,
          sequence: BigInt(arrival.seq),
          epoch: arrival.epoch,
          type: arrival.type,
          category: arrival.category,
          priority: arrival.priority as Priority,
          tags: [...arrival.tags],
          response: encodeArrival(arrival),
          delivered,
        });
      }
    },
    statusChanged: (tenantId, userId, value) => notice(tenantId, userId, Kind.STATUS, { case: "status", value }),
    inboxChanged: (tenantId, userId, value) => notice(tenantId, userId, Kind.NOTICE, { case: "inbox", value }),
    preferencesChanged: (tenantId, userId, changedFields) =>
      notice(tenantId, userId, Kind.NOTICE, { case: "preferences", value: { changedFields } }),
    membershipChanged(tenantId, userIds) {
      for (const userId of userIds) publish(live.user(namespace, tenantId, userId), { kind: Kind.MEMBERSHIP });
    },
    announce(audience, announcement) {
      publish(subjectOf(namespace, audience), {
        kind: Kind.ANNOUNCEMENT,
        category: announcement.category,
        priority: announcement.priority as Priority,
        tags: audience.kind === "topic" ? [topicTag(audience.topic)] : [],
        response: toBinary(
          SubscribeResponseSchema,
          create(SubscribeResponseSchema, { event: { case: "announcement", value: announcement } }),
        ),
      });
    },
  };
}

type Event = NonNullable<MessageInitShape<typeof SubscribeResponseSchema>["event"]>;

function subjectOf(namespace: string, audience: Audience): string {
  switch (audience.kind) {
    case "user":
      return live.user(namespace, audience.tenantId, audience.userId);
    case "topic":
      return live.topic(namespace, audience.tenantId, audience.topic);
    case "tenant":
      return live.tenant(namespace, audience.tenantId);
    case "all":
      return live.all(namespace);
  }
}

const ENTRY = InboxEntrySchema.field;
const ARRIVED = NotificationArrivedSchema.field;
const tag = (number: number) => (number << 3) | WireType.LengthDelimited;

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

/**
 * Encodes SubscribeResponse{notification}. The content is stored encoded and goes in as it is: decoding it only to encode
 * it again would be most of the work, and this runs once for every notification.
 */
export function encodeArrival(arrival: Arrival): Uint8Array {
  return encode(arrival, encodeCounts(arrival.counts), {});
}

/** The same from history, as it stands now: it may have been read, archived or snoozed since. */
export function encodeReplayed(row: InboxEntryRow, epoch: number): Uint8Array {
  const { content, tags, senderId, expiresAt, readAt, archivedAt, snoozedUntil } = row;
  const arrival = {
    ...row,
    epoch,
    content: content ?? new Uint8Array(),
    tags: tags ?? [],
    senderId: senderId ?? "",
    expiresAt: expiresAt ?? undefined,
  };
  return encode(arrival, undefined, {
    seen: row.seen,
    ...(readAt === null ? {} : { readTime: timestampFromDate(readAt) }),
    ...(archivedAt === null ? {} : { archiveTime: timestampFromDate(archivedAt) }),
    ...(snoozedUntil === null ? {} : { snoozeTime: timestampFromDate(snoozedUntil) }),
  });
}

/** Without counts: replayed. */
function encode(
  arrival: Omit<Arrival, "counts">,
  counts: Uint8Array | undefined,
  since: MessageInitShape<typeof InboxEntrySchema>,
): Uint8Array {
  const rest = toBinary(
    InboxEntrySchema,
    create(InboxEntrySchema, {
      notificationId: arrival.notificationId,
      sequence: BigInt(arrival.seq),
      type: arrival.type,
      category: arrival.category,
      priority: arrival.priority as Priority,
      tags: [...arrival.tags],
      senderId: arrival.senderId,
      arriveTime: timestampFromDate(arrival.arrivedAt),
      ...(arrival.expiresAt === undefined ? {} : { expireTime: timestampFromDate(arrival.expiresAt) }),
      ...since,
    }),
  );
  // Fields may stand in any order on the wire, so the content can follow the others.
  const entry = new BinaryWriter().raw(rest).uint32(tag(ENTRY.content.number)).bytes(arrival.content).finish();
  const event = new BinaryWriter()
    .uint32(tag(ARRIVED.entry.number))
    .bytes(entry)
    .uint32(tag(ARRIVED.cursor.number))
    .string(encodeCursor(arrival));
  if (counts === undefined) event.uint32((ARRIVED.replayed.number << 3) | WireType.Varint).bool(true);
  else event.uint32(tag(ARRIVED.counts.number)).bytes(counts);
  return new BinaryWriter()
    .uint32(tag(SubscribeResponseSchema.field.notification.number))
    .bytes(event.finish())
    .finish();
}

function encodeCounts(counts: Arrival["counts"]): Uint8Array {
  return toBinary(InboxCountsSchema, create(InboxCountsSchema, counts) satisfies InboxCounts);
}
