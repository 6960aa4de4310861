import { create } from "@bufbuild/protobuf";
import { durationFromMs, timestampFromDate } from "@bufbuild/protobuf/wkt";
import {
  type Batch,
  type BatchKind,
  BatchSchema,
  BatchService,
  BatchState,
} from "#gen/posthorn/v1/batch_service_pb.ts";
import type { Priority } from "#gen/posthorn/v1/notification_pb.ts";
import { writeAudit } from "#src/audit/queries.ts";
import { closeEarly } from "#src/batches/close-early.ts";
import { type BatchRow, findBatch, findOutcomes, type Outcome, pageBatches } from "#src/batches/queries.ts";
import type { Clock } from "#src/clock.ts";
import { invalidRequest, notFound } from "#src/errors.ts";
import type { NewId } from "#src/ids.ts";
import { type Service, service } from "#src/rpc/call.ts";
import { keysetPage } from "#src/store/keyset.ts";
import type { PageTokens } from "#src/store/page-token.ts";
import { textFaults } from "#src/store/storable.ts";
import type { Store } from "#src/store/store.ts";

export type BatchServiceDeps = { store: Store; pageTokens: PageTokens; clock: Clock; newId: NewId };

const DEFAULT_PAGE = 50;

export function batchService({ store, pageTokens, clock, newId }: BatchServiceDeps): Service {
  const get = (tenantId: string, id: string): Promise<Batch> =>
    store.tenant(tenantId, async (tx) => {
      const [row, outcomes] = await Promise.all([findBatch(tx, tenantId, id), findOutcomes(tx, tenantId, [id])]);
      if (row === undefined) throw notFound("batch");
      return toBatch(row, outcomes.get(row.id));
    });

  return service(BatchService, {
    getBatch: async ({ id }, { tenantId }) => ({ batch: await get(tenantId, id) }),

    async closeBatch({ id, reason }, { tenantId, actor }) {
      const fields = textFaults({ reason });
      if (fields.length > 0) throw invalidRequest(fields);
      await store.tenantDb(tenantId, async (db) => {
        if (!(await closeEarly(db, tenantId, id, clock()))) return;
        const target = `batch:${id.toLowerCase()}`;
        await writeAudit(db, { tenantId, id: newId(), actor, action: "batch.close", target, reason });
      });
      return { batch: await get(tenantId, id) };
    },

    async listBatches({ userId, type, kind, state, pageToken, pageSize }, { tenantId }) {
      const filter = { userId, type, kind, state };
      const { items, nextPageToken } = await keysetPage(pageTokens, {
        query: [tenantId, "ListBatches", filter],
        pageToken,
        pageSize: pageSize || DEFAULT_PAGE,
        read: (before, limit) =>
          store.tenant(tenantId, (tx) => pageBatches(tx, tenantId, filter, before || undefined, limit)),
        keyOf: (row) => row.id,
      });
      const closed = items.filter((row) => row.state === BatchState.CLOSED).map((row) => row.id);
      const outcomes =
        closed.length === 0 ? new Map() : await store.tenant(tenantId, (tx) => findOutcomes(tx, tenantId, closed));
      return { batches: items.map((row) => toBatch(row, outcomes.get(row.id))), nextPageToken };
    },
  });
}

function toBatch(row: BatchRow, outcome: Outcome | undefined): Batch {
  const { CLOSED, DISSOLVED } = BatchState;
  return create(BatchSchema, {
    id: row.id,
    kind: row.kind as BatchKind,
    state: row.state as BatchState,
    userId: row.userId,
    type: row.type,
    priority: row.priority as Priority,
    size: row.state === CLOSED ? row.size : row.state === DISSOLVED ? 0 : row.joined,
    maxSize: row.maxSize,
    createTime: timestampFromDate(row.openedAt),
    flushTime: timestampFromDate(row.flushAt),
    ...(row.endedAt === null ? {} : { closeTime: timestampFromDate(row.endedAt) }),
    ...(row.state !== CLOSED || row.endedAt === null
      ? {}
      : { openDuration: durationFromMs(Math.max(0, row.endedAt.getTime() - row.openedAt.getTime())) }),
    notificationId: row.notificationId ?? "",
    ...(row.state !== CLOSED || outcome === undefined
      ? {}
      : {
          delivered: outcome.delivered,
          failed: outcome.failed,
          ...(outcome.latencyMs === null
            ? {}
            : { averageLatency: durationFromMs(Math.max(0, Math.round(outcome.latencyMs))) }),
        }),
  });
}
