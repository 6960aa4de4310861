import { create } from "@bufbuild/protobuf";
import { timestampFromDate } from "@bufbuild/protobuf/wkt";
import { ErrorReason } from "#gen/posthorn/v1/error_pb.ts";
import { Reason } from "#gen/posthorn/v1/notification_pb.ts";
import { NotificationTypeSchema, TypeService } from "#gen/posthorn/v1/type_service_pb.ts";
import { hourOf } from "#src/analytics/hour.ts";
import { lastAcceptHour } from "#src/analytics/queries.ts";
import { writeAudit } from "#src/audit/queries.ts";
import { DIGEST } from "#src/batches/join.ts";
import type { Invalidations } from "#src/broker/invalidations.ts";
import type { Clock } from "#src/clock.ts";
import { Fault, invalidField, notFound } from "#src/errors.ts";
import type { NewId } from "#src/ids.ts";
import { endOpen } from "#src/notifications/end-open.ts";
import { recordRuleChange, touchDefaults } from "#src/preferences/rule-changes.ts";
import { type Call, type Service, service } from "#src/rpc/call.ts";
import { maskPaths } from "#src/rpc/field-mask.ts";
import { followType } from "#src/schedules/queries.ts";
import { keysetPage } from "#src/store/keyset.ts";
import type { PageTokens } from "#src/store/page-token.ts";
import type { Db, Store } from "#src/store/store.ts";
import { deprecatedSince } from "#src/types/deprecation.ts";
import type { Difference } from "#src/types/differences.ts";
import { compileContract, completeSet } from "#src/types/payload/contract.ts";
import type { Judging } from "#src/types/payload/judging.ts";
import { toContract } from "#src/types/payload/present.ts";
import { checkContract, pushContract } from "#src/types/payload/push.ts";
import { findContract, pageContracts, removeContracts } from "#src/types/payload/queries.ts";
import { presetTypes } from "#src/types/presets.ts";
import {
  changeType,
  findType,
  findTypes,
  insertTypes,
  lockType,
  newRow,
  pageTypes,
  removeType,
} from "#src/types/queries.ts";
import {
  changesBetween,
  pageRevisions,
  recordChanged,
  recordCreated,
  removeRevisions,
  toRevision,
} from "#src/types/revisions.ts";
import {
  changesOf,
  changesRules,
  checkDefinition,
  checkWording,
  definitionOf,
  GENERAL,
  type NotificationTypeRow,
  type TypeDefinition,
  toType,
} from "#src/types/type.ts";

export type TypeServiceDeps = {
  store: Store;
  invalidations: Pick<Invalidations, "publish">;
  pageTokens: PageTokens;
  clock: Clock;
  newId: NewId;
  judging: Judging;
};

/** What became of a type, and of what it was. */
type Updated = { row: NotificationTypeRow; changes: Difference[]; created: boolean };

const DEFAULT_PAGE = 50;
const REVISIONS_PAGE = 20;
/** Of wordings in a page: in all their languages they are by far the largest part of types. */
const PAGE_BYTES = 2 ** 20;
/** Beyond every version. */
const NEWEST = 2 ** 31 - 1;

export function typeService({ store, invalidations, pageTokens, clock, newId, judging }: TypeServiceDeps): Service {
  const audit = (db: Db, { tenantId, actor }: Call, action: string, key: string, changes?: Difference[]) =>
    writeAudit(db, { tenantId, id: newId(), actor, action, target: `type:${key}`, changes });

  /** What waits is decided anew: some preferences are what the type says. */
  async function rulesChanged(db: Db, tenantId: string, type: string): Promise<void> {
    await touchDefaults(db, tenantId, clock());
    await recordRuleChange(db, { tenantId, userId: "", type }, clock());
  }

  /** Undefined when there is one already. */
  async function createType(db: Db, call: Call, wanted: TypeDefinition): Promise<NotificationTypeRow | undefined> {
    const [row] = await insertTypes(db, call.tenantId, [wanted], clock());
    if (row !== undefined) await created(db, call, [row]);
    return row;
  }

  /** Whoever pushes a version waits for the lock that the transaction has on the type. */
  async function checkWordingOf(db: Db, { tenantId, key, payloadVersion }: NotificationTypeRow, wording: Uint8Array) {
    const contract = payloadVersion === null ? undefined : await findContract(db, tenantId, key, payloadVersion);
    if (contract !== undefined) checkWording({ wording }, compileContract(key, contract, judging).desc);
  }

  async function created(db: Db, call: Call, rows: readonly NotificationTypeRow[]): Promise<void> {
    for (const { key, defaultPriority } of rows) {
      await audit(db, call, "type.create", key);
      await followType(db, call.tenantId, key, defaultPriority);
    }
    await recordCreated(db, rows, call.actor);
    // Nothing waits for a type that is new; but what was decided without knowing that it must be asked for is not stored.
    if (rows.some(({ optIn }) => optIn)) await touchDefaults(db, call.tenantId, clock());
  }

  return service(TypeService, {
    async createType(request, call) {
      const wanted = definitionOf(request.type ?? create(NotificationTypeSchema));
      checkDefinition(wanted);
      const row = await store.tenantDb(call.tenantId, (db) => createType(db, call, wanted));
      if (row === undefined) {
        throw new Fault(ErrorReason.ALREADY_EXISTS, {
          message: `There is a type "${wanted.key}" already. Change it with UpdateType.`,
          metadata: { resource: "type" },
        });
      }
      invalidations.publish("type", call.tenantId, row.key);
      return { type: toType(row) };
    },

    async getType(request, call) {
      const { tenantId } = call;
      return store.tenantDb(tenantId, async (db) => {
        const row = await findType(db, tenantId, request.key);
        if (row === undefined) throw notFound("type");
        const last = await lastAcceptHour(db, tenantId, row.key, hourOf(clock()));
        return { type: toType(row), ...(last && { lastAcceptHour: timestampFromDate(last) }) };
      });
    },

    async listTypes(request, call) {
      const { items, nextPageToken } = await keysetPage(pageTokens, {
        query: [call.tenantId, "ListTypes", request.category, request.deprecated],
        pageToken: request.pageToken,
        pageSize: request.pageSize || DEFAULT_PAGE,
        read: (after, limit) =>
          store.tenantDb(call.tenantId, (db) => pageTypes(db, call.tenantId, request, after, limit)),
        keyOf: (row) => row.key,
        most: { bytes: PAGE_BYTES, sizeOf: wordsOf },
      });
      return { types: items.map(toType), nextPageToken };
    },

    async updateType(request, call) {
      const type = request.type ?? create(NotificationTypeSchema);
      const paths = maskPaths(request.updateMask, NotificationTypeSchema, type);
      const wanted = definitionOf(type);
      checkDefinition(wanted);
      const { row, changes, created } = await store.tenantDb(call.tenantId, async (db): Promise<Updated> => {
        let stored = await lockType(db, call.tenantId, wanted.key);
        if (stored === undefined) {
          if (!request.allowMissing) throw notFound("type");
          if (request.revision !== 0) throw new Fault(ErrorReason.ETAG_MISMATCH);
          const row = request.validateOnly
            ? newRow(call.tenantId, wanted, clock())
            : await createType(db, call, wanted);
          if (row !== undefined) return { row, changes: [], created: true };
          // Somebody was faster: theirs is updated.
          stored = await lockType(db, call.tenantId, wanted.key);
          if (stored === undefined) throw new Fault(ErrorReason.ETAG_MISMATCH);
        }
        if (request.revision !== 0 && request.revision !== stored.revision) throw new Fault(ErrorReason.ETAG_MISMATCH);
        const deprecation = deprecatedSince(wanted.deprecation, stored.deprecation, clock());
        const changes = changesOf(stored, { ...wanted, deprecation }, paths);
        if (changes.wording) await checkWordingOf(db, stored, changes.wording);
        if (Object.keys(changes).length === 0) return { row: stored, changes: [], created: false };
        const row = request.validateOnly
          ? { ...stored, ...changes, revision: stored.revision + 1, updatedAt: clock() }
          : await changeType(db, stored, changes, clock());
        const told = changesBetween(stored, row);
        if (request.validateOnly) return { row, changes: told, created: false };
        await recordChanged(db, stored, row, told, call.actor);
        await audit(db, call, "type.update", wanted.key, told);
        if (changesRules(changes)) await rulesChanged(db, call.tenantId, wanted.key);
        if (changes.defaultPriority !== undefined) await followType(db, call.tenantId, row.key, row.defaultPriority);
        return { row, changes: told, created: false };
      });
      if (!request.validateOnly) invalidations.publish("type", call.tenantId, row.key);
      return { type: toType(row), changes, created };
    },

    async listTypeRevisions({ key, pageSize, pageToken }, { tenantId }) {
      const { items, nextPageToken } = await keysetPage(pageTokens, {
        query: [tenantId, "ListTypeRevisions", key],
        pageToken,
        pageSize: pageSize || REVISIONS_PAGE,
        read: (after, limit) =>
          store.tenantDb(tenantId, async (db) => {
            const row = await findType(db, tenantId, key);
            if (row === undefined) throw notFound("type");
            return pageRevisions(db, row, after === "" ? undefined : Number(after), limit);
          }),
        keyOf: ({ revision }) => `${revision}`,
        most: { bytes: PAGE_BYTES, sizeOf: ({ type }) => type.byteLength },
      });
      return { revisions: items.map(toRevision), nextPageToken };
    },

    async deleteType(request, call) {
      const { tenantId, actor, signal } = call;
      const { key } = request;
      if (key === GENERAL) throw invalidField("key", 'the type "general" cannot be deleted');
      const now = clock();
      await store.tenantDb(tenantId, async (db) => {
        if (!(await removeType(db, tenantId, key))) return;
        await removeRevisions(db, tenantId, key);
        await removeContracts(db, tenantId, key);
        await audit(db, call, "type.delete", key);
        await rulesChanged(db, tenantId, key);
      });
      invalidations.publish("type", tenantId, key);
      // Digests go on: they have another wording from now on, and what else was sent with their type ends as rules change.
      if (key === DIGEST) return {};
      // Also when there was none: a call that was cut short is completed by its repetition.
      await endOpen(store, tenantId, { type: key }, { reason: Reason.TYPE_DELETED, actor, now }, signal);
      return {};
    },

    async loadPreset(request, call) {
      const definitions = presetTypes(request.preset)?.map(definitionOf);
      if (definitions === undefined) throw invalidField("preset", "must name a preset");
      const { added, rows } = await store.tenantDb(call.tenantId, async (db) => {
        const added = await insertTypes(db, call.tenantId, definitions, clock());
        await created(db, call, added);
        const keys = definitions.map(({ key }) => key);
        return { added, rows: await findTypes(db, call.tenantId, keys) };
      });
      for (const { key } of added) invalidations.publish("type", call.tenantId, key);
      return { types: rows.map(toType), created: added.length };
    },

    async pushPayload(request, call) {
      const { type, descriptorSet, message, version } = request;
      const pushed = { tenantId: call.tenantId, actor: call.actor, type, descriptorSet, message, version };
      const { row, created, reach } = await pushContract(
        { store, clock, newId, judging },
        pushed,
        async (db, before) => {
          const after = await lockType(db, call.tenantId, type);
          if (after === undefined) throw notFound("type");
          const changes = changesBetween(before, after);
          await recordChanged(db, before, after, changes, call.actor);
          await audit(db, call, "type.push_payload", type, changes);
        },
      );
      invalidations.publish("type", call.tenantId, type);
      return { contract: toContract(row), created, reach };
    },

    checkPayload: ({ type, descriptorSet, message }, call) =>
      checkContract({ store, clock, newId, judging }, { tenantId: call.tenantId, type, descriptorSet, message }),

    async getPayload({ type, version }, call) {
      const row = await store.tenantDb(call.tenantId, async (db) => {
        const current = version || (await findType(db, call.tenantId, type))?.payloadVersion;
        return current ? findContract(db, call.tenantId, type, current) : undefined;
      });
      if (row === undefined) throw notFound("payload_contract");
      return { contract: toContract(row), descriptorSet: completeSet(row.descriptorSet) };
    },

    async listPayloads(request, call) {
      const { items, nextPageToken } = await keysetPage(pageTokens, {
        query: [call.tenantId, "ListPayloads", request.type],
        pageToken: request.pageToken,
        pageSize: request.pageSize || DEFAULT_PAGE,
        read: (after, limit) =>
          store.tenantDb(call.tenantId, async (db) => {
            if ((await findType(db, call.tenantId, request.type)) === undefined) throw notFound("type");
            return pageContracts(db, call.tenantId, request.type, after === "" ? NEWEST : Number(after), limit);
          }),
        keyOf: (row) => String(row.version),
      });
      return { contracts: items.map(toContract), nextPageToken };
    },
  });
}

function wordsOf({ batchWording, wording }: NotificationTypeRow): number {
  return (batchWording?.byteLength ?? 0) + (wording?.byteLength ?? 0);
}
