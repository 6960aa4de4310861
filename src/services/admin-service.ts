import { durationMs, timestampDate, timestampFromDate } from "@bufbuild/protobuf/wkt";
import { AdminService, Tenant_State, WhoAmIResponse_Kind } from "#gen/posthorn/v1/admin_service_pb.ts";
import { auditEntriesBefore } from "#src/audit/queries.ts";
import { type ApiKeysDeps, createApiKey, revokeApiKey, rotateApiKey, toApiKey } from "#src/auth/api-keys.ts";
import { OWN_AUDIENCE } from "#src/auth/issuer.ts";
import { requestedKey } from "#src/auth/issuer-key.ts";
import type { Reach } from "#src/auth/jwks-fetch.ts";
import { pageApiKeys, pageTokenIssuers } from "#src/auth/queries.ts";
import { distrustIssuer, toTokenIssuer, trustIssuer } from "#src/auth/token-issuers.ts";
import { createUserToken, revokeUserTokens, type UserTokensDeps } from "#src/auth/user-tokens.ts";
import { invalidField, invalidRequest, notFound } from "#src/errors.ts";
import { type Principal, type Service, service } from "#src/rpc/call.ts";
import { keysetPage } from "#src/store/keyset.ts";
import type { PageTokens } from "#src/store/page-token.ts";
import { uuidTime } from "#src/store/partitions.ts";
import { textFaults } from "#src/store/storable.ts";
import type { Store } from "#src/store/store.ts";
import { findTenant, pageTenants } from "#src/tenants/queries.ts";
import { createTenant, type TenantsDeps, toTenant, updateTenant } from "#src/tenants/tenants.ts";

export type AdminServiceDeps = TenantsDeps &
  ApiKeysDeps &
  UserTokensDeps & {
    store: Store;
    pageTokens: PageTokens;
    /** Which JWKS URLs are accepted. */
    reach: Reach;
  };

const DEFAULT_PAGE = 50;
const DEFAULT_TTL_MS = 3_600_000;

export function adminService(deps: AdminServiceDeps): Service {
  const { store, pageTokens, reach } = deps;

  return service(AdminService, {
    async createTenant({ displayName }, call) {
      checkTexts({ display_name: displayName });
      return { tenant: toTenant(await createTenant(deps, call.actor, displayName)) };
    },

    async getTenant(request, call) {
      const id = request.id === "" ? call.tenantId : request.id.toLowerCase();
      if (id === "") throw invalidField("id", "is required without the header posthorn-tenant");
      if (call.principal.kind !== "operator" && id !== call.tenantId) throw notFound("tenant");
      const row = await store.tenantDb(id, (db) => findTenant(db, id));
      if (row === undefined) throw notFound("tenant");
      return { tenant: toTenant(row) };
    },

    async listTenants({ pageToken, pageSize }) {
      const { items, nextPageToken } = await keysetPage(pageTokens, {
        query: ["", "ListTenants"],
        pageToken,
        pageSize: pageSize || DEFAULT_PAGE,
        read: (after, limit) => store.systemDb((db) => pageTenants(db, after, limit)),
        keyOf: (row) => row.id,
      });
      return { tenants: items.map(toTenant), nextPageToken };
    },

    async updateTenant({ id, displayName, state }, call) {
      checkTexts({ display_name: displayName });
      const row = await updateTenant(deps, call.actor, id, {
        displayName: displayName === "" ? undefined : displayName,
        state: state === Tenant_State.UNSPECIFIED ? undefined : state,
      });
      return { tenant: toTenant(row) };
    },

    async createApiKey({ displayName, scopes, expireTime }, call) {
      checkTexts({ display_name: displayName });
      const expiresAt = expireTime === undefined ? undefined : timestampDate(expireTime);
      const { row, secret } = await createApiKey(deps, call, { displayName, scopes, expiresAt });
      return { apiKey: toApiKey(row), secret };
    },

    async listApiKeys({ pageToken, pageSize }, { tenantId }) {
      const { items, nextPageToken } = await keysetPage(pageTokens, {
        query: [tenantId, "ListApiKeys"],
        pageToken,
        pageSize: pageSize || DEFAULT_PAGE,
        read: (after, limit) => store.tenantDb(tenantId, (db) => pageApiKeys(db, tenantId, after, limit)),
        keyOf: (row) => row.id,
      });
      return { apiKeys: items.map(toApiKey), nextPageToken };
    },

    async rotateApiKey({ id, overlap }, call) {
      const overlapMs = overlap === undefined ? 0 : durationMs(overlap);
      const { row, secret } = await rotateApiKey(deps, call, id, overlapMs);
      return { apiKey: toApiKey(row), secret };
    },

    async revokeApiKey({ id }, call) {
      return { apiKey: toApiKey(await revokeApiKey(deps, call, id)) };
    },

    async createTokenIssuer({ issuer, audience, algorithm, key }, call) {
      checkTexts({ issuer, audience, ...(key.case === "publicKeyPem" ? { public_key_pem: key.value } : {}) });
      const row = await trustIssuer(deps, call, {
        issuer,
        audience: audience || OWN_AUDIENCE,
        algorithm,
        key: await requestedKey({ algorithm, key }, reach),
      });
      return { tokenIssuer: toTokenIssuer(row) };
    },

    async listTokenIssuers({ pageToken, pageSize }, { tenantId }) {
      const { items, nextPageToken } = await keysetPage(pageTokens, {
        query: [tenantId, "ListTokenIssuers"],
        pageToken,
        pageSize: pageSize || DEFAULT_PAGE,
        read: (after, limit) => store.tenantDb(tenantId, (db) => pageTokenIssuers(db, tenantId, after, limit)),
        keyOf: (row) => row.id,
      });
      return { tokenIssuers: items.map(toTokenIssuer), nextPageToken };
    },

    async deleteTokenIssuer({ id }, call) {
      await distrustIssuer(deps, call, id);
      return {};
    },

    async createUserToken({ userId, ttl }, call) {
      const ttlMs = ttl === undefined ? DEFAULT_TTL_MS : durationMs(ttl);
      const { token, expiresAt } = await createUserToken(deps, call, userId, ttlMs);
      return { token, expireTime: timestampFromDate(expiresAt) };
    },

    async revokeUserTokens({ userId }, call) {
      await revokeUserTokens(deps, call, userId);
      return {};
    },

    async whoAmI(_request, { principal, tenantId }) {
      return { tenantId, ...identity(principal) };
    },

    async listAuditEntries({ pageToken, pageSize }, { tenantId }) {
      const { items, nextPageToken } = await keysetPage(pageTokens, {
        query: [tenantId, "ListAuditEntries"],
        pageToken,
        pageSize: pageSize || DEFAULT_PAGE,
        read: (before, limit) => store.tenantDb(tenantId, (db) => auditEntriesBefore(db, tenantId, before, limit)),
        keyOf: (entry) => entry.id,
      });
      const entries = items.map(({ id, actor, action, target, reason, changes }) => ({
        id,
        time: timestampFromDate(uuidTime(id)),
        actor,
        action,
        target,
        reason,
        changes: [...changes],
      }));
      return { entries, nextPageToken };
    },
  });
}

function identity(principal: Principal) {
  switch (principal.kind) {
    case "operator":
      return { kind: WhoAmIResponse_Kind.OPERATOR };
    case "key":
      return {
        kind: WhoAmIResponse_Kind.API_KEY,
        apiKeyId: principal.keyId,
        scopes: [...principal.scopes],
        ...expiry(principal.expiresAt),
      };
    case "user":
      return { kind: WhoAmIResponse_Kind.USER, userId: principal.userId, ...expiry(principal.expiresAt) };
    default:
      return principal satisfies never;
  }
}

function expiry(expiresAt: Date | undefined) {
  return expiresAt === undefined ? {} : { expireTime: timestampFromDate(expiresAt) };
}

/** INVALID_REQUEST for what the contract's validation cannot refuse. */
function checkTexts(texts: Record<string, string>): void {
  const fields = textFaults(texts);
  if (fields.length > 0) throw invalidRequest(fields);
}
