import { create } from "@bufbuild/protobuf";
import { timestampFromDate } from "@bufbuild/protobuf/wkt";
import {
  type Preferences,
  PreferencesSchema,
  PreferencesService,
  type UpdatePreferencesRequest,
} from "#gen/posthorn/v1/preferences_service_pb.ts";
import { dissolveAll } from "#src/batches/dissolve.ts";
import { invalidField, invalidRequest, notFound } from "#src/errors.ts";
import { type ChangeDeps, changePreferences } from "#src/preferences/change.ts";
import { etagOf } from "#src/preferences/document.ts";
import { effective } from "#src/preferences/effective.ts";
import { findPreferences, findProfile } from "#src/preferences/queries.ts";
import { targetUser } from "#src/rpc/access.ts";
import { type Call, type Service, service } from "#src/rpc/call.ts";
import { applyMask, maskPaths } from "#src/rpc/field-mask.ts";
import { textFaults } from "#src/store/storable.ts";
import { findType } from "#src/types/queries.ts";

export function preferencesService(deps: ChangeDeps): Service {
  const { store } = deps;
  return service(PreferencesService, {
    async getPreferences(request, call) {
      const owner = { tenantId: call.tenantId, userId: targetUser(request, call) };
      const stored = await store.tenantDb(call.tenantId, (db) => findPreferences(db, owner));
      return {
        preferences: stored.preferences,
        etag: etagOf(stored),
        ...(stored.updatedAt && { updateTime: timestampFromDate(stored.updatedAt) }),
      };
    },

    async updatePreferences(request, call) {
      const owner = { tenantId: call.tenantId, userId: targetUser(request, call) };
      const { stored, changedFields } = await changePreferences(deps, owner, {
        actor: call.actor,
        action: "preferences.update",
        reason: reasonOf(request, call),
        etag: request.etag,
        edit: edits(request),
      });
      return { preferences: stored.preferences, etag: etagOf(stored), changedFields };
    },

    async resetPreferences(request, call) {
      const owner = { tenantId: call.tenantId, userId: targetUser(request, call) };
      const { stored } = await changePreferences(deps, owner, {
        actor: call.actor,
        action: "preferences.reset",
        reason: reasonOf(request, call),
        etag: "",
        edit: () => create(PreferencesSchema),
      });
      return { etag: etagOf(stored) };
    },

    async getEffectivePreferences({ userId: named, type: key }, call) {
      const { tenantId } = call;
      const owner = { tenantId, userId: targetUser({ userId: named }, call) };
      return store.tenantDb(tenantId, async (db) => {
        const type = key === "" ? undefined : await findType(db, tenantId, key);
        if (key !== "" && type === undefined) throw notFound("type");
        const levels = {
          tenant: (await findPreferences(db, { tenantId, userId: "" })).preferences,
          profile: await findProfile(db, owner),
          user: (await findPreferences(db, owner)).preferences,
        };
        return effective(levels, type && { type: key, category: type.category, optIn: type.optIn });
      });
    },

    async getDefaultPreferences(_, call) {
      const owner = { tenantId: call.tenantId, userId: "" };
      const stored = await store.tenantDb(call.tenantId, (db) => findPreferences(db, owner));
      return { preferences: stored.preferences, etag: etagOf(stored) };
    },

    async updateDefaultPreferences(request, call) {
      const now = deps.clock();
      const { stored, changedFields } = await changePreferences(
        deps,
        { tenantId: call.tenantId, userId: "" },
        {
          actor: call.actor,
          action: "default_preferences.update",
          reason: "",
          etag: request.etag,
          edit: edits(request),
        },
      );
      if (changedFields.length > 0) await dissolveAll(store, call.tenantId, { everyone: true }, now, call.signal);
      return { preferences: stored.preferences, etag: etagOf(stored) };
    },
  });
}

/** Users need no reason for what concerns themselves; everybody else does (it stands in the audit log). */
function reasonOf({ reason }: { reason: string }, { principal }: Call): string {
  if (principal.kind !== "user" && reason.trim() === "") {
    throw invalidField("reason", "is required when an API key changes a user's preferences");
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
