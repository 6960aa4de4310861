import { create } from "@bufbuild/protobuf";
import { timestampFromDate } from "@bufbuild/protobuf/wkt";
import {
  type Preferences,
  PreferencesSchema,
  PreferencesService,
  type Subscription,
  SubscriptionSchema,
  type UpdatePreferencesRequest,
} from "#gen/posthorn/v1/preferences_service_pb.ts";
import { writeAudit } from "#src/audit/queries.ts";
import { invalidField, invalidRequest, notFound } from "#src/errors.ts";
import { eraseLearnt } from "#src/learning/erase.ts";
import { toLearntTiming } from "#src/learning/present.ts";
import { findLooks } from "#src/learning/queries.ts";
import type { ChannelsPerDay } from "#src/limits/channel-day.ts";
import { changePreferences } from "#src/preferences/change.ts";
import { etagOf } from "#src/preferences/document.ts";
import { effective } from "#src/preferences/effective.ts";
import { findPreferences, readLevels } from "#src/preferences/queries.ts";
import { reasonOf, targetUser } from "#src/rpc/access.ts";
import { type Call, type Service, service } from "#src/rpc/call.ts";
import { applyMask, maskPaths } from "#src/rpc/field-mask.ts";
import { keysetPage } from "#src/store/keyset.ts";
import type { PageTokens } from "#src/store/page-token.ts";
import { textFaults } from "#src/store/storable.ts";
import type { Db } from "#src/store/store.ts";
import {
  createSubscription,
  deleteSubscription,
  type SubscriptionDeps,
  unsubscribeAll,
  updateSubscription,
} from "#src/subscriptions/change.ts";
import { findSubscription, type Owner, pageSubscriptions, type SubscriptionRow } from "#src/subscriptions/queries.ts";
import { Kind } from "#src/subscriptions/rules.ts";
import { FilterFault, vet } from "#src/subscriptions/vet.ts";
import { findType } from "#src/types/queries.ts";

export type PreferencesServiceDeps = SubscriptionDeps & {
  pageTokens: PageTokens;
  /** What the server allows. */
  channelsPerDay: ChannelsPerDay;
};

const DEFAULT_PAGE = 50;

export function preferencesService(deps: PreferencesServiceDeps): Service {
  const { store, pageTokens, channelsPerDay } = deps;
  const by = (request: { reason: string }, call: Call) => ({ actor: call.actor, reason: reasonOf(request, call) });

  /** What an API key reads of a user stands in the audit log, once for each call. */
  async function auditRead(
    db: Db,
    { tenantId, principal, actor }: Call,
    action: "preferences.read" | "subscription.read" | "learnt_timing.read",
    { userId }: Owner,
  ): Promise<void> {
    if (principal.kind === "user") return;
    await writeAudit(db, { tenantId, id: deps.newId(), actor, action, target: `user:${userId}` });
  }

  return service(PreferencesService, {
    async getPreferences(request, call) {
      const owner = { tenantId: call.tenantId, userId: targetUser(request, call) };
      const stored = await store.tenantDb(call.tenantId, async (db) => {
        await auditRead(db, call, "preferences.read", owner);
        return findPreferences(db, owner);
      });
      return {
        preferences: stored.preferences,
        etag: etagOf(stored),
        ...(stored.updatedAt && { updateTime: timestampFromDate(stored.updatedAt) }),
      };
    },

    async updatePreferences(request, call) {
      const owner = { tenantId: call.tenantId, userId: targetUser(request, call) };
      const { stored, changedFields, reconciled } = await changePreferences(deps, owner, {
        actor: call.actor,
        action: "preferences.update",
        reason: reasonOf(request, call),
        etag: request.etag,
        edit: edits(request),
      });
      return {
        preferences: stored.preferences,
        etag: etagOf(stored),
        changedFields,
        ...(reconciled && { reconciled }),
      };
    },

    async resetPreferences(request, call) {
      const owner = { tenantId: call.tenantId, userId: targetUser(request, call) };
      const { stored, reconciled } = await changePreferences(deps, owner, {
        actor: call.actor,
        action: "preferences.reset",
        reason: reasonOf(request, call),
        etag: "",
        edit: () => create(PreferencesSchema),
      });
      return { etag: etagOf(stored), ...(reconciled && { reconciled }) };
    },

    async getEffectivePreferences({ userId: named, type: key }, call) {
      const { tenantId } = call;
      const owner = { tenantId, userId: targetUser({ userId: named }, call) };
      return store.tenantDb(tenantId, async (db) => {
        const type = key === "" ? undefined : await findType(db, tenantId, key);
        if (key !== "" && type === undefined) throw notFound("type");
        await auditRead(db, call, "preferences.read", owner);
        const { levels, subscriptions } = await readLevels(db, tenantId, [owner.userId]);
        if (type === undefined) return effective(levels(owner.userId), undefined, channelsPerDay);
        const subscribed = subscriptions(owner.userId).some(([kind, to]) => kind === Kind.TYPE && to === key);
        const { category, optIn, reminderOffsetsMs } = type;
        const scope = { type: key, category, optIn, subscribed, reminderOffsetsMs };
        return effective(levels(owner.userId), scope, channelsPerDay);
      });
    },

    async getDefaultPreferences(_, call) {
      const owner = { tenantId: call.tenantId, userId: "" };
      const stored = await store.tenantDb(call.tenantId, (db) => findPreferences(db, owner));
      return { preferences: stored.preferences, etag: etagOf(stored) };
    },

    async updateDefaultPreferences(request, call) {
      const { stored } = await changePreferences(
        deps,
        { tenantId: call.tenantId, userId: "" },
        {
          actor: call.actor,
          action: "default_preferences.update",
          reason: reasonOf(request, call),
          etag: request.etag,
          edit: edits(request),
        },
      );
      return { preferences: stored.preferences, etag: etagOf(stored) };
    },

    async createSubscription(request, call) {
      const { target, filter } = request.subscription ?? create(SubscriptionSchema);
      checkFilter("subscription.filter", filter);
      const { value, reconciled } = await createSubscription(
        deps,
        ownerOf(request, call),
        { ...targetOf(target), filter },
        by(request, call),
      );
      return { subscription: toSubscription(value), ...(reconciled && { reconciled }) };
    },

    async getSubscription(request, call) {
      const owner = ownerOf(request, call);
      const row = await store.tenantDb(call.tenantId, async (db) => {
        await auditRead(db, call, "subscription.read", owner);
        return findSubscription(db, owner, request.subscriptionId);
      });
      if (row === undefined) throw notFound("subscription");
      return { subscription: toSubscription(row) };
    },

    async listSubscriptions(request, call) {
      const owner = ownerOf(request, call);
      const { items, nextPageToken } = await keysetPage(pageTokens, {
        query: [call.tenantId, "ListSubscriptions", owner.userId],
        pageToken: request.pageToken,
        pageSize: request.pageSize || DEFAULT_PAGE,
        read: (after, limit) =>
          store.tenantDb(call.tenantId, async (db) => {
            await auditRead(db, call, "subscription.read", owner);
            return pageSubscriptions(db, owner, after, limit);
          }),
        keyOf: (row) => row.id,
      });
      return { subscriptions: items.map(toSubscription), nextPageToken };
    },

    async updateSubscription(request, call) {
      checkFilter("filter", request.filter);
      const { subscriptionId, filter } = request;
      const owner = ownerOf(request, call);
      const changed = await updateSubscription(deps, owner, subscriptionId, filter, by(request, call));
      const { value, reconciled } = changed;
      return { subscription: toSubscription(value), ...(reconciled && { reconciled }) };
    },

    async deleteSubscription(request, call) {
      const owner = ownerOf(request, call);
      const { reconciled } = await deleteSubscription(deps, owner, request.subscriptionId, by(request, call));
      return { ...(reconciled && { reconciled }) };
    },

    async unsubscribeAll(request, call) {
      const ended = await unsubscribeAll(deps, ownerOf(request, call), by(request, call), call.signal);
      return { ...ended, notifications: BigInt(ended.notifications) };
    },

    async getLearntTiming(request, call) {
      const owner = ownerOf(request, call);
      const [found] = await store.tenantDb(call.tenantId, async (db) => {
        await auditRead(db, call, "learnt_timing.read", owner);
        return findLooks(db, call.tenantId, [owner.userId]);
      });
      return found === undefined ? {} : toLearntTiming(found, deps.clock());
    },

    async deleteLearntTiming(request, call) {
      const reconciled = await eraseLearnt(deps, ownerOf(request, call), by(request, call));
      return { ...(reconciled && { reconciled }) };
    },
  });
}

function edits(
  request: Pick<UpdatePreferencesRequest, "preferences" | "updateMask">,
): (before: Preferences) => Preferences {
  const given = request.preferences ?? create(PreferencesSchema);
  const paths = maskPaths(request.updateMask, PreferencesSchema, given, "leaves");
  return (before) => applyMask(PreferencesSchema, before, given, paths);
}

function ownerOf(request: { userId: string }, call: Call): Owner {
  return { tenantId: call.tenantId, userId: targetUser(request, call) };
}

function checkFilter(field: string, filter: string): void {
  if (filter === "") return;
  const faults = textFaults({ [field]: filter });
  if (faults.length > 0) throw invalidRequest(faults);
  try {
    vet(filter);
  } catch (error) {
    if (error instanceof FilterFault) throw invalidField(field, error.message);
    throw error;
  }
}

const KINDS = { type: Kind.TYPE, topic: Kind.TOPIC, category: Kind.CATEGORY } as const;
const CASES = { [Kind.TYPE]: "type", [Kind.TOPIC]: "topic", [Kind.CATEGORY]: "category" } as const;

function targetOf(target: Subscription["target"]): { kind: Kind; key: string } {
  if (target.case === undefined) throw invalidField("subscription.target", "is required");
  return { kind: KINDS[target.case], key: target.value };
}

function toSubscription(row: SubscriptionRow): Subscription {
  return create(SubscriptionSchema, {
    id: row.id,
    target: { case: CASES[row.kind as Kind], value: row.key },
    filter: row.filter,
    createTime: timestampFromDate(row.createdAt),
    updateTime: timestampFromDate(row.updatedAt),
  });
}
