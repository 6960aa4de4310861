import { randomBytes } from "node:crypto";
import { timestampDate, timestampFromMs } from "@bufbuild/protobuf/wkt";
import { expect, test } from "vitest";
import {
  AdminService,
  Scope,
  Tenant_State,
  TokenAlgorithm,
  WhoAmIResponse_Kind,
} from "#gen/posthorn/v1/admin_service_pb.ts";
import { ErrorReason } from "#gen/posthorn/v1/error_pb.ts";
import { type Node, newTenant, OPERATOR_KEY, testNode } from "../auth/platform.ts";
import { fakeCall, keyOf, OPERATOR, userOf } from "../support/call.ts";
import { invoke } from "../support/invoke.ts";
import { testServices } from "../support/services.ts";

const services = await testServices();
const rpc = AdminService.method;
const reason = (name: keyof typeof ErrorReason) => ({ reason: ErrorReason[name] });
const NOBODY = "01890000-0000-7000-8000-000000000000";
const operator = fakeCall({ tenantId: "", principal: OPERATOR });

const secretIssuer = (issuer: string) => ({
  issuer,
  algorithm: TokenAlgorithm.HS256,
  key: { case: "secret" as const, value: randomBytes(32) },
});

/** Every entry of a tenant's audit log, oldest first, without what is random. */
async function auditLog(node: Node, tenantId: string) {
  const { entries } = await invoke(node.admin, rpc.listAuditEntries, { pageSize: 200 }, fakeCall({ tenantId }));
  return entries.toReversed().map(({ actor, action, target }) => [actor, action, target]);
}

test("a tenant is created, read, renamed, suspended and resumed, and each is in its audit log", async () => {
  const node = await testNode(services);
  const { tenant } = await invoke(node.admin, rpc.createTenant, { displayName: "Acme" }, operator);
  const id = tenant!.id;
  expect(tenant).toMatchObject({ displayName: "Acme", state: Tenant_State.ACTIVE });
  expect(Math.abs(timestampDate(tenant!.createTime!).getTime() - Date.now())).toBeLessThan(10_000);
  expect((await invoke(node.admin, rpc.getTenant, { id }, operator)).tenant).toEqual(tenant);
  expect((await invoke(node.admin, rpc.getTenant, {}, fakeCall({ tenantId: id }))).tenant).toEqual(tenant);

  const renamed = await invoke(node.admin, rpc.updateTenant, { id, displayName: "Acme Ltd" }, operator);
  expect(renamed.tenant).toEqual({ ...tenant, displayName: "Acme Ltd" });
  const state = Tenant_State.SUSPENDED;
  const suspended = await invoke(node.admin, rpc.updateTenant, { id, state }, operator);
  expect(suspended.tenant).toEqual({ ...tenant, displayName: "Acme Ltd", state });
  await invoke(node.admin, rpc.updateTenant, { id, state }, operator);
  await invoke(node.admin, rpc.updateTenant, { id, state: Tenant_State.ACTIVE }, operator);

  const actions = ["tenant.create", "tenant.update", "tenant.suspend", "tenant.resume"];
  expect(await auditLog(node, id)).toEqual(actions.map((action) => ["operator", action, `tenant:${id}`]));
});

test("tenants are listed in the order of creation, page by page", async () => {
  const node = await testNode(services);
  const made: string[] = [];
  for (const displayName of ["a", "b", "c", "d", "e"]) {
    made.push((await invoke(node.admin, rpc.createTenant, { displayName }, operator)).tenant!.id);
  }
  const listed: string[] = [];
  let pageToken = "";
  do {
    const page = await invoke(node.admin, rpc.listTenants, { pageSize: 2, pageToken }, operator);
    expect(page.tenants.length).toBeLessThanOrEqual(2);
    listed.push(...page.tenants.map(({ id }) => id));
    pageToken = page.nextPageToken;
  } while (pageToken !== "");
  expect(listed.filter((id) => made.includes(id))).toEqual(made);
});

test("one tenant reads nothing of another, and the answers do not tell whether there is one", async () => {
  const node = await testNode(services);
  const mine = await newTenant(node);
  const other = await newTenant(node);
  const { apiKeys } = await invoke(node.admin, rpc.listApiKeys, {}, other.call);
  const otherKey = apiKeys[0]!.id;
  const { tokenIssuers } = await invoke(node.admin, rpc.listTokenIssuers, {}, other.call);
  for (const id of [other.tenantId, NOBODY]) {
    await expect(invoke(node.admin, rpc.getTenant, { id }, mine.call)).rejects.toMatchObject(reason("NOT_FOUND"));
  }
  for (const id of [otherKey, NOBODY]) {
    for (const method of [rpc.rotateApiKey, rpc.revokeApiKey]) {
      const error = await invoke(node.admin, method, { id }, mine.call).catch((error) => error);
      expect(error).toMatchObject({ ...reason("NOT_FOUND"), message: "There is no such api key." });
    }
  }
  for (const id of [tokenIssuers[0]!.id, NOBODY]) {
    expect(await invoke(node.admin, rpc.deleteTokenIssuer, { id }, mine.call)).toMatchObject({});
  }
  expect((await invoke(node.admin, rpc.listTokenIssuers, {}, other.call)).tokenIssuers).toEqual(tokenIssuers);
  expect((await invoke(node.admin, rpc.listApiKeys, {}, mine.call)).apiKeys.map(({ id }) => id)).not.toContain(
    otherKey,
  );
  await node.who(other.apiKey);
  const { token } = await invoke(node.admin, rpc.createUserToken, { userId: "ann" }, other.call);
  await invoke(node.admin, rpc.revokeUserTokens, { userId: "ann" }, mine.call);
  expect(await node.who(token)).toMatchObject({ tenantId: other.tenantId });
});

test("keys are listed without secrets, revoked ones included, page by page; a page token serves its own list", async () => {
  const node = await testNode(services);
  const { call } = await newTenant(node);
  const expireTime = timestampFromMs(Date.now() + 60_000);
  const request = { displayName: "b", scopes: [Scope.INBOX, Scope.SEND], expireTime };
  const made = await invoke(node.admin, rpc.createApiKey, request, call);
  expect(made.apiKey).toMatchObject({ displayName: "b", scopes: [Scope.SEND, Scope.INBOX], expireTime });
  const { apiKey: revoked } = await invoke(node.admin, rpc.revokeApiKey, { id: made.apiKey!.id }, call);
  const first = await invoke(node.admin, rpc.listApiKeys, { pageSize: 1 }, call);
  expect(first.apiKeys).toMatchObject([{ displayName: "Everything" }]);
  const pageToken = first.nextPageToken;
  const second = await invoke(node.admin, rpc.listApiKeys, { pageSize: 1, pageToken }, call);
  expect(second.apiKeys).toEqual([revoked]);
  expect(second.nextPageToken).toBe("");
  const wrong = reason("INVALID_PAGE_TOKEN");
  await expect(invoke(node.admin, rpc.listTokenIssuers, { pageToken }, call)).rejects.toMatchObject(wrong);
  const other = await newTenant(node);
  await expect(invoke(node.admin, rpc.listApiKeys, { pageToken }, other.call)).rejects.toMatchObject(wrong);
});

test("issuers are listed without secrets, and an issuer and audience belong to one tenant", async () => {
  const node = await testNode(services);
  const [mine, other] = [await newTenant(node), await newTenant(node)];
  const issuer = `https://${mine.tenantId}.example.com`;
  const { tokenIssuer } = await invoke(node.admin, rpc.createTokenIssuer, secretIssuer(issuer), mine.call);
  expect(tokenIssuer).toMatchObject({ issuer, audience: "posthorn", algorithm: TokenAlgorithm.HS256, jwksUrl: "" });
  for (const { call } of [mine, other]) {
    await expect(invoke(node.admin, rpc.createTokenIssuer, secretIssuer(issuer), call)).rejects.toMatchObject(
      reason("ALREADY_EXISTS"),
    );
  }
  await invoke(node.admin, rpc.createTokenIssuer, { ...secretIssuer(issuer), audience: "theirs" }, other.call);
  const { tokenIssuers } = await invoke(node.admin, rpc.listTokenIssuers, {}, mine.call);
  expect(tokenIssuers.map(({ issuer }) => issuer)).toEqual([`posthorn:${mine.tenantId}`, issuer]);
});

test("deleting the tenant's own issuer replaces its secret, on every server", async () => {
  const [here, there] = [await testNode(services), await testNode(services)];
  const { call, tenantId } = await newTenant(here);
  const own = (await invoke(here.admin, rpc.listTokenIssuers, {}, call)).tokenIssuers[0]!;
  const { token } = await invoke(here.admin, rpc.createUserToken, { userId: "ann" }, call);
  await there.who(token);
  await invoke(here.admin, rpc.deleteTokenIssuer, { id: own.id }, call);
  await invoke(here.admin, rpc.deleteTokenIssuer, { id: own.id }, call);
  const soon = { timeout: 1000, interval: 10 };
  const answer = () => there.who(token).then(String, ({ reason }) => reason);
  await expect.poll(answer, soon).toBe(ErrorReason.CREDENTIAL_INVALID);
  const { token: next } = await invoke(here.admin, rpc.createUserToken, { userId: "ann" }, call);
  expect(await here.who(next)).toMatchObject({ tenantId, userId: "ann" });
  await expect.poll(() => there.who(next), soon).toMatchObject({ tenantId });
  await expect(here.who(token)).rejects.toMatchObject(reason("CREDENTIAL_INVALID"));
});

test.each([
  ["HS256 with a public key", TokenAlgorithm.HS256, { case: "publicKeyPem" as const, value: "x" }],
  ["HS256 with a URL", TokenAlgorithm.HS256, { case: "jwksUrl" as const, value: "https://example.com/jwks" }],
  ["RS256 with a secret", TokenAlgorithm.RS256, { case: "secret" as const, value: randomBytes(32) }],
  ["no PEM", TokenAlgorithm.ES256, { case: "publicKeyPem" as const, value: "-----BEGIN NOTHING-----" }],
  ["a URL inside", TokenAlgorithm.ES256, { case: "jwksUrl" as const, value: "https://169.254.169.254/jwks" }],
  ["a URL without TLS", TokenAlgorithm.ES256, { case: "jwksUrl" as const, value: "http://example.com/jwks" }],
])("an issuer with %s is refused", async (_what, algorithm, key) => {
  const node = await testNode(services);
  const { call } = await newTenant(node);
  const request = { issuer: "https://example.com", algorithm, key };
  const refused = reason("INVALID_REQUEST");
  await expect(invoke(node.admin, rpc.createTokenIssuer, request, call)).rejects.toMatchObject(refused);
});

test("whoever asks is told who they are", async () => {
  const node = await testNode(services);
  const { tenantId, apiKey, call } = await newTenant(node);
  const ask = async (credential: string, header?: string) => {
    const principal = await node.who(credential, header);
    return invoke(node.admin, rpc.whoAmI, {}, fakeCall({ tenantId: principal.tenantId ?? "", principal }));
  };
  expect(await ask(OPERATOR_KEY)).toMatchObject({ kind: WhoAmIResponse_Kind.OPERATOR, tenantId: "" });
  expect(await ask(OPERATOR_KEY, tenantId)).toMatchObject({ kind: WhoAmIResponse_Kind.OPERATOR, tenantId });
  const key = await ask(apiKey);
  expect(key).toMatchObject({ kind: WhoAmIResponse_Kind.API_KEY, tenantId, userId: "" });
  expect(key.scopes).toHaveLength(Object.keys(Scope).length - 1);
  expect(key.expireTime).toBe(undefined);
  const { token, expireTime } = await invoke(node.admin, rpc.createUserToken, { userId: "ann" }, call);
  const user = { kind: WhoAmIResponse_Kind.USER, tenantId, userId: "ann", expireTime, scopes: [] };
  expect(await ask(token)).toMatchObject(user);
});

test("every change is in the audit log with who made it, and what failed or changed nothing is not", async () => {
  const node = await testNode(services);
  const { tenantId, call } = await newTenant(node);
  const principal = keyOf(tenantId);
  const by = fakeCall({ tenantId, principal });
  const before = (await auditLog(node, tenantId)).length;
  const issuer = `https://${tenantId}.example.com`;
  const { apiKey } = await invoke(node.admin, rpc.createApiKey, { displayName: "k", scopes: [Scope.SEND] }, by);
  const id = apiKey!.id;
  await invoke(node.admin, rpc.rotateApiKey, { id }, by);
  await invoke(node.admin, rpc.revokeApiKey, { id }, by);
  await invoke(node.admin, rpc.revokeApiKey, { id }, by);
  const { tokenIssuer } = await invoke(node.admin, rpc.createTokenIssuer, secretIssuer(issuer), by);
  await expect(invoke(node.admin, rpc.createTokenIssuer, secretIssuer(issuer), by)).rejects.toThrow();
  await invoke(node.admin, rpc.deleteTokenIssuer, { id: tokenIssuer!.id }, by);
  await invoke(node.admin, rpc.deleteTokenIssuer, { id: tokenIssuer!.id }, by);
  await invoke(node.admin, rpc.createUserToken, { userId: "ann" }, by);
  await invoke(node.admin, rpc.revokeUserTokens, { userId: "ann" }, fakeCall({ tenantId, principal: OPERATOR }));
  await expect(invoke(node.admin, rpc.rotateApiKey, { id: NOBODY }, by)).rejects.toThrow();

  const actor = `key:${principal.keyId}`;
  expect((await auditLog(node, tenantId)).slice(before)).toEqual([
    [actor, "api_key.create", `api_key:${id}`],
    [actor, "api_key.rotate", `api_key:${id}`],
    [actor, "api_key.revoke", `api_key:${id}`],
    [actor, "token_issuer.create", `token_issuer:${tokenIssuer!.id}`],
    [actor, "token_issuer.delete", `token_issuer:${tokenIssuer!.id}`],
    [actor, "user_token.create", "user:ann"],
    ["operator", "user_token.revoke", "user:ann"],
  ]);
  const { entries, nextPageToken } = await invoke(node.admin, rpc.listAuditEntries, { pageSize: 3 }, call);
  expect(entries.map(({ action }) => action)).toEqual([
    "user_token.revoke",
    "user_token.create",
    "token_issuer.delete",
  ]);
  expect(Math.abs(timestampDate(entries[0]!.time!).getTime() - Date.now())).toBeLessThan(10_000);
  const next = await invoke(node.admin, rpc.listAuditEntries, { pageSize: 1, pageToken: nextPageToken }, call);
  expect(next.entries.map(({ action }) => action)).toEqual(["token_issuer.create"]);
});

test("text that cannot be stored is refused as such", async () => {
  const node = await testNode(services);
  const { tenantId: id, call } = await newTenant(node);
  const displayName = "a\0b";
  const refused = reason("INVALID_REQUEST");
  await expect(invoke(node.admin, rpc.createTenant, { displayName }, operator)).rejects.toMatchObject(refused);
  await expect(invoke(node.admin, rpc.updateTenant, { id, displayName }, operator)).rejects.toMatchObject(refused);
  await expect(invoke(node.admin, rpc.createApiKey, { displayName, scopes: [1] }, call)).rejects.toMatchObject(refused);
  await expect(invoke(node.admin, rpc.createTokenIssuer, secretIssuer("a\0b"), call)).rejects.toMatchObject(refused);
});

test("a user gives nobody scopes", async () => {
  const node = await testNode(services);
  const { tenantId } = await newTenant(node);
  const call = fakeCall({ tenantId, principal: userOf(tenantId, "ann") });
  const request = { displayName: "k", scopes: [Scope.SEND] };
  await expect(invoke(node.admin, rpc.createApiKey, request, call)).rejects.toMatchObject(reason("SCOPE_MISSING"));
});

test("twenty rotations at once leave one secret", async () => {
  const node = await testNode(services);
  const { call } = await newTenant(node);
  const { apiKey } = await invoke(node.admin, rpc.createApiKey, { displayName: "k", scopes: [Scope.SEND] }, call);
  const rotate = () => invoke(node.admin, rpc.rotateApiKey, { id: apiKey!.id }, call);
  const rotated = await Promise.all(Array.from({ length: 20 }, rotate));
  const good = await Promise.allSettled(rotated.map(({ secret }) => node.who(secret)));
  expect(good.filter(({ status }) => status === "fulfilled")).toHaveLength(1);
});
