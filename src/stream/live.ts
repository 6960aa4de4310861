import { create, type MessageInitShape, toBinary } from "@bufbuild/protobuf";
import { BinaryWriter } from "@bufbuild/protobuf/wire";
import { LiveEvent_Kind as Kind, LiveEventSchema } from "#gen/posthorn/internal/v1/live_pb.ts";
import type { Priority } from "#gen/posthorn/v1/notification_pb.ts";
import type { ReconciledSchema } from "#gen/posthorn/v1/preferences_service_pb.ts";
import {
  type Announcement,
  type BatchProgressSchema,
  type InboxChangedSchema,
  type StatusChangedSchema,
  SubscribeResponseSchema,
} from "#gen/posthorn/v1/stream_service_pb.ts";
import type { Broker } from "#src/broker/broker.ts";
import type { Head, InboxEntryRow } from "#src/inbox/entry.ts";
import { live } from "#src/pipeline/flow.ts";
import { type Arrival, arrivedAgain, encodeLiveArrival } from "./arrival.ts";
import { topicTag } from "./filter.ts";

/**
 * Tells the streams of a user, wherever they are connected, what happened. Call after the commit. At most once: a hub
 * that misses an arrival notices the gap and reads the inbox.
 */
export type Live = {
  /** `delivered`: streams that asked for statuses are told DELIVERED with it, so nobody needs to say so besides. */
  arrived(tenantId: string, arrivals: readonly Arrival[], delivered: boolean): void;
  /** The entry is at a new place, because its sender has changed it. */
  shownAnew(tenantId: string, shown: { row: InboxEntryRow; head: Head }): void;
  statusChanged(tenantId: string, userId: string, change: MessageInitShape<typeof StatusChangedSchema>): void;
  inboxChanged(tenantId: string, userId: string, change: MessageInitShape<typeof InboxChangedSchema>): void;
  preferencesChanged(
    tenantId: string,
    userId: string,
    changedFields: string[],
    reconciled: MessageInitShape<typeof ReconciledSchema> | undefined,
  ): void;
  batchProgress(tenantId: string, userId: string, progress: MessageInitShape<typeof BatchProgressSchema>): void;
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
  /** Kept, so that it has grown once and for all. */
  const writer = new BinaryWriter();
  const publishBytes = (subject: string, bytes: Uint8Array) => {
    if (!broker.nats.isClosed()) broker.nats.publish(subject, bytes);
  };
  const publish = (subject: string, event: MessageInitShape<typeof LiveEventSchema>) =>
    publishBytes(subject, toBinary(LiveEventSchema, create(LiveEventSchema, event)));
  const notice = (tenantId: string, userId: string, kind: Kind, event: Event) =>
    publish(live.user(namespace, tenantId, userId), {
      kind,
      response: toBinary(SubscribeResponseSchema, create(SubscribeResponseSchema, { event })),
    });
  const arrived: Live["arrived"] = (tenantId, arrivals, delivered) => {
    for (const arrival of arrivals) {
      const subject = live.user(namespace, tenantId, arrival.userId);
      publishBytes(subject, encodeLiveArrival(arrival, delivered, writer));
    }
  };
  return {
    arrived,
    shownAnew: (tenantId, { row, head }) => arrived(tenantId, [arrivedAgain(row, head)], false),
    statusChanged: (tenantId, userId, value) => notice(tenantId, userId, Kind.STATUS, { case: "status", value }),
    inboxChanged: (tenantId, userId, value) => notice(tenantId, userId, Kind.NOTICE, { case: "inbox", value }),
    preferencesChanged: (tenantId, userId, changedFields, reconciled) =>
      notice(tenantId, userId, Kind.NOTICE, {
        case: "preferences",
        value: { changedFields, ...(reconciled && { reconciled }) },
      }),
    batchProgress: (tenantId, userId, value) => notice(tenantId, userId, Kind.STATUS, { case: "batch", value }),
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
