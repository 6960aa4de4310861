import { create } from "@bufbuild/protobuf";
import { timestampFromDate } from "@bufbuild/protobuf/wkt";
import { Priority } from "#gen/posthorn/v1/notification_pb.ts";
import {
  AckRequest_Kind,
  AnnouncementSchema,
  type BroadcastRequest,
  StreamService,
} from "#gen/posthorn/v1/stream_service_pb.ts";
import type { Clock } from "#src/clock.ts";
import { invalidField, notFound } from "#src/errors.ts";
import type { NewId } from "#src/ids.ts";
import { toCounts } from "#src/inbox/entry.ts";
import type { Inbox } from "#src/inbox/inbox.ts";
import { readHeads } from "#src/inbox/queries.ts";
import { checkData } from "#src/pipeline/accept/check-data.ts";
import { targetUser } from "#src/rpc/access.ts";
import { type Call, type Service, service } from "#src/rpc/call.ts";
import type { Store } from "#src/store/store.ts";
import { decodeCursor } from "#src/stream/cursor.ts";
import { compileFilter } from "#src/stream/filter.ts";
import type { Hub } from "#src/stream/hub.ts";
import type { Audience, Live } from "#src/stream/live.ts";
import { type Presence, UNNAMED_DEVICE } from "#src/stream/presence.ts";
import { findTopic } from "#src/topics/queries.ts";

export type StreamServiceDeps = {
  hub: Hub;
  live: Live;
  presence: Presence;
  clock: Clock;
  newId: NewId;
  store: Store;
  inbox: Inbox;
  /** A user looks at what came, now. */
  looked(tenantId: string, userId: string): void;
};

export function streamService(deps: StreamServiceDeps): Service {
  const { hub, live, presence } = deps;
  return service(StreamService, {
    subscribe(request, call) {
      const { principal } = call;
      return hub.subscribe({
        tenantId: call.tenantId,
        userId: targetUser(request, call),
        deviceId: request.deviceId || `${UNNAMED_DEVICE}-${deps.newId().slice(-12)}`,
        cursor: decodeCursor(request.cursor),
        passes: compileFilter(request.filter),
        includeStatus: request.includeStatus,
        expiresAt: principal.kind === "operator" ? undefined : principal.expiresAt,
        signal: call.signal,
      });
    },

    async ack(request, call) {
      const userId = targetUser(request, call);
      const through = Number(request.throughSequence);
      const heads = await deps.store.tenantAtOnce(call.tenantId, (tx) => readHeads(tx, call.tenantId, [userId]));
      const head = heads.get(userId);
      if (through > (head?.seq ?? 0)) {
        throw invalidField("through_sequence", `is ahead of the inbox, whose newest entry is ${head?.seq ?? 0}`);
      }
      await presence.received(call.tenantId, userId, request.deviceId, through);
      if (request.kind !== AckRequest_Kind.SEEN) return { counts: toCounts(head) };
      if (call.principal.kind === "user") deps.looked(call.tenantId, userId);
      return {
        counts: toCounts(await deps.inbox.markSeen({ tenantId: call.tenantId, userId }, request.throughSequence)),
      };
    },

    async getPresence(request, call) {
      const userIds = request.userIds.length > 0 ? request.userIds : [targetUser({ userId: "" }, call)];
      const states = await presence.read(call.tenantId, userIds);
      return {
        presences: states.map((state, index) => ({
          userId: userIds[index] ?? "",
          online: state.online,
          ...(state.lastSeenAt === undefined ? {} : { lastSeenTime: timestampFromDate(state.lastSeenAt) }),
          devices: state.devices.map((device) => ({
            deviceId: device.deviceId,
            online: device.online,
            lastSeenTime: timestampFromDate(device.lastSeenAt),
            receivedSequence: BigInt(device.receivedSeq),
          })),
        })),
      };
    },

    async broadcast(request, call) {
      if (!request.content?.title) throw invalidField("content.title", "is required");
      checkData(request.content.data);
      const audience = audienceOf(request, call);
      if (audience.kind === "topic" && !(await topicExists(deps.store, audience.tenantId, audience.topic)))
        throw notFound("topic");
      const announcement = create(AnnouncementSchema, {
        id: deps.newId(),
        ...(request.content === undefined ? {} : { content: request.content }),
        category: request.category,
        priority: request.priority === Priority.UNSPECIFIED ? Priority.NORMAL : request.priority,
        time: timestampFromDate(deps.clock()),
        topic: audience.kind === "topic" ? audience.topic : "",
      });
      live.announce(audience, announcement);
      return { id: announcement.id };
    },
  });
}

async function topicExists(store: Store, tenantId: string, key: string): Promise<boolean> {
  return (await store.tenantDb(tenantId, (db) => findTopic(db, tenantId, key))) !== undefined;
}

function audienceOf({ audience }: BroadcastRequest, { tenantId }: Call): Audience {
  switch (audience.case) {
    case "userId":
      return { kind: "user", tenantId, userId: audience.value };
    case "topic":
      return { kind: "topic", tenantId, topic: audience.value };
    case "allTenants":
      return { kind: "all" };
    case "tenant":
      return { kind: "tenant", tenantId };
    case undefined:
      throw invalidField("audience", "name a user, a topic, the tenant or all tenants");
  }
}
