import { create } from "@bufbuild/protobuf";
import { timestampFromDate } from "@bufbuild/protobuf/wkt";
import { type Topic, TopicSchema, TopicService } from "#gen/posthorn/v1/topic_service_pb.ts";
import type { Invalidations } from "#src/broker/invalidations.ts";
import type { Clock } from "#src/clock.ts";
import { invalidRequest, notFound } from "#src/errors.ts";
import { targetUser } from "#src/rpc/access.ts";
import { type Service, service } from "#src/rpc/call.ts";
import { keysetPage } from "#src/store/keyset.ts";
import type { PageTokens } from "#src/store/page-token.ts";
import { textFaults } from "#src/store/storable.ts";
import type { Store } from "#src/store/store.ts";
import { forgetTopic } from "#src/subscriptions/queries.ts";
import {
  addMembers,
  findTopic,
  type MembershipChanged,
  pageMemberIds,
  pageTopics,
  pageUserTopics,
  removeMembers,
  removeTopic,
  type TopicRow,
  upsertTopic,
} from "#src/topics/queries.ts";

export type TopicServiceDeps = {
  store: Store;
  pageTokens: PageTokens;
  clock: Clock;
  invalidations: Invalidations;
  membershipChanged: MembershipChanged;
};

const DEFAULT_PAGE = 50;
const DEFAULT_MEMBERS_PAGE = 100;

export function topicService(deps: TopicServiceDeps): Service {
  const { store, pageTokens, clock, membershipChanged } = deps;

  function left(tenantId: string, topic: string, userIds: readonly string[], unsubscribed: readonly string[]): void {
    if (userIds.length > 0) membershipChanged(tenantId, topic, userIds);
    for (const userId of unsubscribed) deps.invalidations.publish("preferences", tenantId, userId);
  }

  return service(TopicService, {
    async upsertTopic(request, call) {
      const { key, description, openToUsers } = request.topic ?? create(TopicSchema);
      const fields = textFaults({ "topic.description": description });
      if (fields.length > 0) throw invalidRequest(fields);
      const row = await store.tenantDb(call.tenantId, (db) =>
        upsertTopic(db, { tenantId: call.tenantId, key, description, openToUsers, createdAt: clock() }),
      );
      return { topic: toTopic(row) };
    },

    async getTopic(request, call) {
      const row = await store.tenantDb(call.tenantId, (db) => findTopic(db, call.tenantId, request.key));
      if (row === undefined) throw notFound("topic");
      return { topic: toTopic(row) };
    },

    async listTopics(request, call) {
      const { items, nextPageToken } = await keysetPage(pageTokens, {
        query: [call.tenantId, "ListTopics"],
        pageToken: request.pageToken,
        pageSize: request.pageSize || DEFAULT_PAGE,
        read: (after, limit) => store.tenantDb(call.tenantId, (db) => pageTopics(db, call.tenantId, after, limit)),
        keyOf: (row) => row.key,
      });
      return { topics: items.map(toTopic), nextPageToken };
    },

    async deleteTopic(request, call) {
      for (let done = false; !done; ) {
        call.signal.throwIfAborted();
        const { removed, gone, unsubscribed } = await store.tenantDb(call.tenantId, async (db) => {
          const step = await removeTopic(db, call.tenantId, request.key);
          return { ...step, unsubscribed: await forgetTopic(db, call.tenantId, request.key, step.removed) };
        });
        left(call.tenantId, request.key, removed, unsubscribed);
        done = gone;
      }
      return {};
    },

    async addMembers(request, call) {
      const added = await store.tenantDb(call.tenantId, (db) =>
        addMembers(db, call.tenantId, request.key, request.userIds),
      );
      if (added === undefined) throw notFound("topic");
      if (added.length > 0) membershipChanged(call.tenantId, request.key, added);
      return { added: added.length };
    },

    async removeMembers(request, call) {
      const { removed, unsubscribed } = await store.tenantDb(call.tenantId, async (db) => {
        const removed = await removeMembers(db, call.tenantId, request.key, request.userIds);
        if (removed === undefined) throw notFound("topic");
        return { removed, unsubscribed: await forgetTopic(db, call.tenantId, request.key, removed) };
      });
      left(call.tenantId, request.key, removed, unsubscribed);
      return { removed: removed.length };
    },

    async listMembers(request, call) {
      const { items, nextPageToken } = await keysetPage(pageTokens, {
        query: [call.tenantId, "ListMembers", request.key],
        pageToken: request.pageToken,
        pageSize: request.pageSize || DEFAULT_MEMBERS_PAGE,
        read: (after, limit) =>
          store.tenantDb(call.tenantId, async (db) => {
            if ((await findTopic(db, call.tenantId, request.key)) === undefined) throw notFound("topic");
            return pageMemberIds(db, call.tenantId, request.key, after, limit);
          }),
        keyOf: (userId) => userId,
      });
      return { userIds: items, nextPageToken };
    },

    async listUserTopics(request, call) {
      const userId = targetUser(request, call);
      const { items, nextPageToken } = await keysetPage(pageTokens, {
        query: [call.tenantId, "ListUserTopics", userId],
        pageToken: request.pageToken,
        pageSize: request.pageSize || DEFAULT_PAGE,
        read: (after, limit) =>
          store.tenantDb(call.tenantId, (db) => pageUserTopics(db, call.tenantId, userId, after, limit)),
        keyOf: (key) => key,
      });
      return { topics: items, nextPageToken };
    },
  });
}

function toTopic(row: TopicRow): Topic {
  return create(TopicSchema, {
    key: row.key,
    description: row.description,
    memberCount: BigInt(row.memberCount),
    createTime: timestampFromDate(row.createdAt),
    openToUsers: row.openToUsers,
  });
}
