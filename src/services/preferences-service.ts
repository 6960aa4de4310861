import { create } from "@bufbuild/protobuf";
import { timestampFromDate } from "@bufbuild/protobuf/wkt";
import {
  type Preferences,
  PreferencesSchema,
  PreferencesService,
  type UpdatePreferencesRequest,
} from "#gen/posthorn/v1/preferences_service_pb.ts";
import { writeAudit } from "#src/audit/queries.ts";
import { invalidField, invalidRequest, notFound } from "#src/errors.ts";
import { type ChangeDeps, changePreferences } from "#src/preferences/change.ts";
import { etagOf } from "#src/preferences/document.ts";
import { effective } from "#src/preferences/effective.ts";
import { findPreferences, readLevels } from "#src/preferences/queries.ts";
import { targetUser } from "#src/rpc/access.ts";
import { type Call, type Service, service } from "#src/rpc/call.ts";
import { applyMask, maskPaths } from "#src/rpc/field-mask.ts";
import { textFaults } from "#src/store/storable.ts";
import type { Db } from "#src/store/store.ts";
import { findType } from "#src/types/queries.ts";

export function preferencesService(deps: ChangeDeps): Service {
  const { store, newId } = deps;
  /** Who looks at somebody else's is written down, once for each call. */
  const auditRead = async (db: Db, { tenantId, principal, actor }: Call, userId: string): Promise<void> => {
    if (principal.kind === "user") return;
    await writeAudit(db, { tenantId, id: newId(), actor, action: "preferences.read", target: `user:${userId}` });
  };
  return service(PreferencesService, {
    async getPreferences(request, call) {
      const owner = { tenantId: call.tenantId, userId: targetUser(request, call) };
      const stored = await store.tenantDb(call.tenantId, async (db) => {
        await auditRead(db, call, owner.userId);
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
        await auditRead(db, call, owner.userId);
        const { levels } = await readLevels(db, tenantId, [owner.userId]);
        return effective(levels(owner.userId), type && { type: key, category: type.category, optIn: type.optIn });
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
  });
}

/** Users need no reason for what concerns themselves; everybody else does (it stands in the audit log). */
function reasonOf({ reason }: { reason: string }, { principal }: Call): string {
  if (principal.kind !== "user" && reason.trim() === "") {
    throw invalidField("reason", "is required when an API key changes preferences");
  }
  const fields = textFaults({ reason });
  if (fields.length > 0) throw invalidRequest(fields);
  return reason;
}

function edits(
  request: Pick<UpdatePreferencesRequest, "preferences" | "updateMask">,
): (before: Preferences) => Preferences {
  const given = request.preferences ?? create(PreferencesSchema);
  const paths = maskPaths(request.updateMask, PreferencesSchema, given, "leaves");
  return (before) => applyMask(PreferencesSchema, before, given, paths);
}
