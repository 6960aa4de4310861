import { create } from "@bufbuild/protobuf";
import { durationMs } from "@bufbuild/protobuf/wkt";
import { Scope } from "#gen/posthorn/v1/admin_service_pb.ts";
import { ErrorReason } from "#gen/posthorn/v1/error_pb.ts";
import { type Notification, Status } from "#gen/posthorn/v1/notification_pb.ts";
import {
  type SendBatchResult,
  type SendRequest,
  SendRequestSchema,
  SendService,
} from "#gen/posthorn/v1/send_service_pb.ts";
import { auditRaw } from "#src/audit/queries.ts";
import { mapInSlices } from "#src/breathe.ts";
import type { Clock } from "#src/clock.ts";
import { Fault, invalidField, invalidRequest, notFound } from "#src/errors.ts";
import { cancelEscalation } from "#src/escalation/confirm.ts";
import type { NewId } from "#src/ids.ts";
import type { Inbox } from "#src/inbox/inbox.ts";
import { type Cancelled, cancelByIds, readStopped } from "#src/notifications/cancel.ts";
import { cancelWaiting } from "#src/notifications/cancel-waiting.ts";
import { drawnIn, explained } from "#src/notifications/explain.ts";
import { filterOf, isEmpty } from "#src/notifications/filter.ts";
import { notOpen } from "#src/notifications/not-open.ts";
import {
  isBypass,
  latestDecision,
  type NotificationRow,
  toNotification,
  toTimeline,
} from "#src/notifications/notification.ts";
import {
  findNotifications,
  pageNotifications,
  queuePosition,
  readTimeline,
  readTimelineEnds,
} from "#src/notifications/queries.ts";
import { readRulesThen } from "#src/notifications/rules-then.ts";
import { withDecisions } from "#src/notifications/with-decisions.ts";
import type { Accept } from "#src/pipeline/accept/accept.ts";
import { cancelFanout, findFanout, toFanout } from "#src/pipeline/accept/fanout.ts";
import { checkedTime } from "#src/pipeline/accept/prepare.ts";
import { type UpdateDeps, updating } from "#src/pipeline/accept/update.ts";
import type { Preview } from "#src/pipeline/preview.ts";
import type { ZoneClock } from "#src/preferences/zone-clock.ts";
import { zoneOf } from "#src/preferences/zone-of.ts";
import { hasScope, scopeMissing } from "#src/rpc/access.ts";
import { type Call, type Service, service } from "#src/rpc/call.ts";
import { tellDeprecated, tellingDeprecated } from "#src/rpc/deprecation-headers.ts";
import { itemError } from "#src/rpc/item-error.ts";
import type { Violations } from "#src/rpc/validate.ts";
import { keysetPage } from "#src/store/keyset.ts";
import type { PageTokens } from "#src/store/page-token.ts";
import type { Store, Tx } from "#src/store/store.ts";
import type { Metrics } from "#src/telemetry/metrics.ts";

export type SendServiceDeps = UpdateDeps & {
  store: Store;
  accept: Accept;
  clock: Clock;
  pageTokens: PageTokens;
  inbox: Pick<Inbox, "confirm">;
  metrics: Pick<Metrics, "escalationsEnded">;
  newId: NewId;
  violations: Violations;
  preview: Preview;
  clockOf(zone: string): ZoneClock;
  /** Counter slot of this process's single changes. */
  slot: number;
  /** Tells the users' streams. Called after the commit. */
  cancelled(tenantId: string, notifications: readonly Cancelled[], at: Date): void;
};

const MAX_QUEUE_POSITION = 1000;
const MAX_USERS_OF_BATCH = 10_000;
const CANCEL_PER_CALL = 10_000;
/** Of what follows the acceptance. */
const EXPLAINED = { first: 99, last: 400 };

export function sendService(deps: SendServiceDeps): Service {
  const { store, accept, clock, slot } = deps;
  const update = updating(deps);
  const by = (call: Call) => ({ actor: call.actor, now: clock(), slot });

  /** What a request needs beyond the access rule of its method. */
  function checkScope(request: SendRequest, call: Call): Fault | undefined {
    const allowed = !request.bypassRateLimit || hasScope(call.principal, Scope.BYPASS_RATE_LIMIT);
    return allowed ? undefined : scopeMissing(Scope.BYPASS_RATE_LIMIT);
  }

  async function sendEach(items: readonly SendRequest[], call: Call): Promise<SendBatchResult[]> {
    const users = items.reduce((sum, item) => sum + (item.to?.userIds.length ?? 0), 0);
    if (users > MAX_USERS_OF_BATCH) {
      throw new Fault(ErrorReason.LIMIT_OF_CALL, {
        message: `items: name ${users} user ids together; ${MAX_USERS_OF_BATCH} are allowed in one call`,
      });
    }
    const refused = await mapInSlices(items, (item) => {
      const fields = deps.violations(SendRequestSchema, item);
      return fields.length > 0 ? invalidRequest(fields) : checkScope(item, call);
    });
    const accepted = await accept(
      call,
      items.filter((_, index) => refused[index] === undefined),
    );
    let next = 0;
    return refused.map((fault) => {
      const outcome = fault ?? accepted[next++];
      if (outcome === undefined) throw new Error("an item without an outcome");
      return {
        $typeName: "posthorn.v1.SendBatchResult",
        result:
          outcome instanceof Fault
            ? { case: "error", value: itemError(outcome) }
            : { case: "response", value: outcome },
      };
    });
  }

  /** Who is shown the rules of a user stands in the audit log, once for each call, as with GetPreferences. */
  function auditRead(tx: Tx, { tenantId, actor }: Call, userId: string): Promise<void> {
    return auditRaw(tx, { tenantId, id: deps.newId(), actor, action: "preferences.read", target: `user:${userId}` });
  }

  async function one(tx: Tx, call: Call, id: string): Promise<NotificationRow> {
    const [row] = await findNotifications(tx, call.tenantId, [id]);
    if (row === undefined) throw notFound("notification");
    return row;
  }

  return service(SendService, {
    async send(request, call) {
      const fault = checkScope(request, call);
      if (fault !== undefined) throw fault;
      const [response] = await accept(call, [request]);
      if (response === undefined || response instanceof Fault) throw response;
      tellDeprecated(call, response.warnings);
      const wait = request.waitForDecision === undefined ? 0 : durationMs(request.waitForDecision);
      return wait > 0 && response.results.length > 0 ? withDecisions(store, call, response, wait) : response;
    },

    sendBatch: async ({ items }, call) => ({ results: tellingDeprecated(call, await sendEach(items, call)) }),

    async *sendStream(requests, call) {
      for await (const request of requests) {
        yield { chunkId: request.chunkId, results: await sendEach(request.items, call) };
      }
    },

    getNotification: ({ id }, call) =>
      store.tenant(call.tenantId, async (tx) => {
        const [row, rows] = await Promise.all([one(tx, call, id), readTimeline(tx, call.tenantId, id)]);
        const timeline = toTimeline(row, rows);
        const notification: Notification = { ...toNotification(row), ...latestDecision(timeline) };
        if (row.status === Status.ACCEPTED) {
          notification.queuePosition = await queuePosition(tx, call.tenantId, id, row.priority, MAX_QUEUE_POSITION);
        }
        return { notification, timeline };
      }),

    async explainNotification({ id }, call) {
      const { row, rows, omitted, timeZone } = await store.tenant(call.tenantId, async (tx) => {
        const [row, ends] = await Promise.all([one(tx, call, id), readTimelineEnds(tx, call.tenantId, id, EXPLAINED)]);
        await auditRead(tx, call, row.userId);
        return { row, ...ends, timeZone: await zoneOf(tx, call.tenantId, row.userId) };
      });
      const drawn = drawnIn(rows);
      const rulesThen = await store.tenantDb(call.tenantId, (db) =>
        readRulesThen(db, call.tenantId, row, drawn, deps.clockOf),
      );
      return {
        notification: { ...toNotification(row), ...latestDecision(toTimeline(row, rows)) },
        timeZone,
        bypassedBy: rows.find(isBypass)?.actor ?? "",
        timeline: explained(row, rows, rulesThen),
        omitted,
      };
    },

    async previewSend({ request = create(SendRequestSchema), time }, call) {
      const { principal } = call;
      if (!hasScope(principal, Scope.PREFERENCES_READ)) throw scopeMissing(Scope.PREFERENCES_READ);
      const fault = checkScope(request, call);
      if (fault !== undefined) throw fault;
      const now = clock();
      const asked = time === undefined ? now : checkedTime("time", time, now);
      const answer = await deps.preview(call.tenantId, request, new Date(Math.max(asked.getTime(), now.getTime())));
      await store.tenant(call.tenantId, (tx) => auditRead(tx, call, request.to?.userIds[0] ?? ""));
      return answer;
    },

    async listNotifications(request, call) {
      const filter = filterOf(request.filter);
      const { items, nextPageToken } = await keysetPage(deps.pageTokens, {
        query: [call.tenantId, "ListNotifications", { ...filter }],
        pageToken: request.pageToken,
        pageSize: request.pageSize || 50,
        read: (before, limit) =>
          store.tenant(call.tenantId, (tx) => pageNotifications(tx, call.tenantId, filter, before || undefined, limit)),
        keyOf: (row) => row.id,
      });
      return { notifications: items.map(toNotification), nextPageToken };
    },

    async updateNotification(request, call) {
      const { row, updated, pending } = await update(call, request);
      return { notification: toNotification(row), updatedChannels: updated, pendingChannels: pending };
    },

    async cancelNotification({ id }, call) {
      const who = by(call);
      const { tenantId } = call;
      const { row, cancelled, stopped } = await store.tenant(tenantId, async (tx) => {
        const cancelled = await cancelByIds(tx, tenantId, [id], who);
        return { row: await one(tx, call, id), cancelled, stopped: await readStopped(tx, tenantId, id) };
      });
      if (row.status !== Status.CANCELLED && !stopped.byRequest) throw notOpen(row.status);
      deps.cancelled(tenantId, cancelled, who.now);
      const { channels, pending } = stopped;
      return { notification: toNotification(row), stoppedChannels: channels, pendingChannels: pending };
    },

    async cancelNotifications(request, call) {
      const { tenantId, signal } = call;
      const who = by(call);
      const counts = { cancelled: 0, stopped: 0 };
      const told = (some: readonly Cancelled[]) => {
        const many = some.filter(({ status }) => status === Status.CANCELLED).length;
        counts.cancelled += many;
        counts.stopped += some.length - many;
        deps.cancelled(tenantId, some, who.now);
      };
      if (request.filter === undefined) {
        told(await store.tenant(tenantId, (tx) => cancelByIds(tx, tenantId, request.ids, who)));
        return { ...counts, more: false };
      }
      const filter = filterOf(request.filter);
      if (isEmpty(filter)) throw invalidField("filter", "give at least one condition");
      const many = { by: who, told, most: CANCEL_PER_CALL, signal };
      const total = await cancelWaiting(store, tenantId, filter, many);
      return { ...counts, more: total >= CANCEL_PER_CALL };
    },

    async confirmNotification({ id, reason }, call) {
      const { tenantId, actor } = call;
      const target = `notification:${id}`;
      await deps.inbox.confirm({ tenantId }, id, actor, (tx) =>
        auditRaw(tx, { tenantId, id: deps.newId(), actor, action: "notification.confirm", target, reason }),
      );
      return { notification: toNotification(await store.tenant(tenantId, (tx) => one(tx, call, id))) };
    },

    async cancelEscalation({ id }, { tenantId, actor }) {
      const cancelled = await store.tenant(tenantId, (tx) =>
        cancelEscalation(tx, tenantId, id, { actor, now: clock() }),
      );
      if (cancelled) deps.metrics.escalationsEnded.inc({ outcome: "cancelled" });
      return { cancelled };
    },

    getFanout: ({ id }, call) =>
      store.tenant(call.tenantId, async (tx) => {
        const row = await findFanout(tx, call.tenantId, id);
        if (row === undefined) throw notFound("fanout");
        return { fanout: toFanout(row) };
      }),

    cancelFanout: ({ id }, call) =>
      store.tenant(call.tenantId, async (tx) => {
        await cancelFanout(tx, call.tenantId, id, clock());
        const row = await findFanout(tx, call.tenantId, id);
        if (row === undefined) throw notFound("fanout");
        return { fanout: toFanout(row) };
      }),
  });
}
