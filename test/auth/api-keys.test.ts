import { durationFromMs, timestampFromMs } from "@bufbuild/protobuf/wkt";
import postgres from "postgres";
import { expect, test } from "vitest";
import { AdminService, Scope } from "#gen/posthorn/v1/admin_service_pb.ts";
import { ErrorReason } from "#gen/posthorn/v1/error_pb.ts";
import { fakeCall, keyOf } from "../support/call.ts";
import { invoke } from "../support/invoke.ts";
import { testServices } from "../support/services.ts";
import { newTenant, OPERATOR_KEY, testNode } from "./platform.ts";

const services = await testServices();
const { createApiKey, rotateApiKey, revokeApiKey, updateTenant } = AdminService.method;
const reason = (name: keyof typeof ErrorReason) => ({ reason: ErrorReason[name] });

test("an API key says who calls and what it may do", async () => {
  const node = await testNode(services);
  const { tenantId, call } = await newTenant(node);
  const scopes = [Scope.SEND, Scope.INBOX];
  const { apiKey, secret } = await invoke(node.admin, createApiKey, { displayName: "k", scopes }, call);
  expect(secret).toMatch(/^phk_[a-z2-7]{12}_[A-Za-z0-9_-]{43}$/);
  expect(secret.startsWith(`${apiKey!.prefix}_`)).toBe(true);
  expect(await node.who(secret)).toMatchObject({
    kind: "key",
    tenantId,
    keyId: apiKey!.id,
    scopes: new Set(scopes),
    expiresAt: undefined,
  });
});

test("the secret of a key is nowhere in the database", async () => {
  const node = await testNode(services);
  const { apiKey } = await newTenant(node);
  const sql = postgres(services.databaseUrl, { max: 1 });
  try {
    const shown = await sql`
      select 1 from api_keys k
      where k::text like ${`%${apiKey.slice(17)}%`} or position(${Buffer.from(apiKey)} in secret_hash) > 0`;
    expect(shown).toHaveLength(0);
    const rows = await sql`select secret_hash from api_keys where prefix = ${apiKey.slice(0, 16)}`;
    expect(rows[0]!.secret_hash).toHaveLength(32);
  } finally {
    await sql.end();
  }
});

test("a known key is recognised without a look-up", async () => {
  const node = await testNode(services);
  const { apiKey } = await newTenant(node);
  await node.who(apiKey);
  const before = node.lookups();
  for (let call = 0; call < 100; call++) await node.who(apiKey);
  expect(node.lookups()).toBe(before);
});

const SAMPLE = `phk_${"a".repeat(12)}_${"B".repeat(43)}`;
test.each([
  ["no header", undefined, "CREDENTIAL_MISSING"],
  ["an empty header", "", "CREDENTIAL_MISSING"],
  ["another scheme", `Basic ${SAMPLE}`, "CREDENTIAL_INVALID"],
  ["a scheme alone", "Bearer ", "CREDENTIAL_INVALID"],
  ["no scheme", SAMPLE, "CREDENTIAL_INVALID"],
  ["two credentials", `Bearer ${SAMPLE} ${SAMPLE}`, "CREDENTIAL_INVALID"],
  ["an unknown key", `Bearer ${SAMPLE}`, "CREDENTIAL_INVALID"],
  ["a key cut short", `Bearer ${SAMPLE.slice(0, -1)}`, "CREDENTIAL_INVALID"],
  ["a key with a NUL", `Bearer ${SAMPLE.slice(0, -1)}\0`, "CREDENTIAL_INVALID"],
  ["SQL", "Bearer ' or 1=1 --", "CREDENTIAL_INVALID"],
  ["a megabyte", `Bearer ${"a".repeat(2 ** 20)}`, "CREDENTIAL_INVALID"],
] as const)("%s is refused", async (_what, header, expected) => {
  const node = await testNode(services);
  await expect(node.auth.authenticate(header)).rejects.toMatchObject(reason(expected));
});

test("every single character of a secret matters, and the answer does not tell how near it was", async () => {
  const node = await testNode(services);
  const { apiKey } = await newTenant(node);
  const messages = new Set<string>();
  for (let at = 4; at < apiKey.length; at++) {
    if (apiKey[at] === "_" && at === 16) continue;
    const forged = apiKey.slice(0, at) + (apiKey[at] === "b" ? "c" : "b") + apiKey.slice(at + 1);
    const error = await node.who(forged).catch((error) => error);
    expect(error).toMatchObject(reason("CREDENTIAL_INVALID"));
    messages.add(JSON.stringify([error.message, error.metadata, error.fields]));
  }
  expect(messages.size).toBe(1);
});

test("a flood of unknown keys costs a few statements, and its repetition none", async () => {
  const node = await testNode(services);
  const flood = Array.from({ length: 3000 }, (_, index) => {
    const id = [...index.toString().padStart(12, "0")].map((digit) => String.fromCharCode(97 + Number(digit))).join("");
    return `phk_${id}_${"B".repeat(43)}`;
  });
  const refused = await Promise.allSettled(flood.map((key) => node.who(key)));
  expect(refused.every(({ status }) => status === "rejected")).toBe(true);
  expect(node.lookups()).toBeLessThanOrEqual(6);
  const before = node.lookups();
  await Promise.allSettled(flood.map((key) => node.who(key)));
  expect(node.lookups()).toBe(before);
});

test("a key expires, in the cache as well", async () => {
  const time = { now: Date.now() };
  const node = await testNode(services, { now: () => time.now });
  const { call } = await newTenant(node);
  const expireTime = timestampFromMs(time.now + 5000);
  const { secret } = await invoke(
    node.admin,
    createApiKey,
    { displayName: "k", scopes: [Scope.SEND], expireTime },
    call,
  );
  expect(await node.who(secret)).toMatchObject({ expiresAt: new Date(time.now + 5000) });
  time.now += 5000;
  await expect(node.who(secret)).rejects.toMatchObject(reason("CREDENTIAL_EXPIRED"));
  // Who does not know the secret does not learn that there was such a key.
  const forged = `${secret.slice(0, -1)}${secret.endsWith("A") ? "E" : "A"}`;
  await expect(node.who(forged)).rejects.toMatchObject(reason("CREDENTIAL_INVALID"));
});

test("a revoked key is refused by another server at once, streams included", async () => {
  const here = await testNode(services);
  const there = await testNode(services);
  const { apiKey, call } = await newTenant(here);
  const principal = await there.who(apiKey);
  if (principal.kind !== "key") throw new Error("not a key");
  expect(await there.auth.stillValid(principal)).toBe(true);
  await invoke(here.admin, revokeApiKey, { id: principal.keyId }, call);
  await expect(here.who(apiKey)).rejects.toMatchObject(reason("CREDENTIAL_INVALID"));
  // `there` has a standing clock, so nothing but the message over NATS can have told it.
  await expect.poll(() => there.auth.stillValid(principal), { timeout: 1000, interval: 10 }).toBe(false);
  await expect(there.who(apiKey)).rejects.toMatchObject(reason("CREDENTIAL_INVALID"));
});

test("a revoked key is refused within the cache's time where NATS does not tell", async () => {
  const time = { now: 0 };
  const here = await testNode(services);
  const deaf = await testNode({ ...services, namespace: `${services.namespace}deaf` }, { ticks: () => time.now });
  const { apiKey, call } = await newTenant(here);
  const principal = await deaf.who(apiKey);
  if (principal.kind !== "key") throw new Error("not a key");
  await invoke(here.admin, revokeApiKey, { id: principal.keyId }, call);
  time.now = 999;
  await deaf.who(apiKey);
  time.now = 1000;
  await expect(deaf.who(apiKey)).rejects.toMatchObject(reason("CREDENTIAL_INVALID"));
  expect(await deaf.auth.stillValid(principal)).toBe(false);
});

test("revoking again changes nothing", async () => {
  const node = await testNode(services);
  const { call, apiKey } = await newTenant(node);
  const principal = await node.who(apiKey);
  const id = principal.kind === "key" ? principal.keyId : "";
  const first = await invoke(node.admin, revokeApiKey, { id }, call);
  expect(first.apiKey?.revokeTime).toBeDefined();
  expect(await invoke(node.admin, revokeApiKey, { id }, call)).toEqual(first);
});

test("after a rotation both secrets work until the overlap ends, on every server", async () => {
  const time = { now: Date.now() };
  const here = await testNode(services, { now: () => time.now });
  const there = await testNode(services, { now: () => time.now });
  const { apiKey: old, call } = await newTenant(here);
  const before = await there.who(old);
  const id = before.kind === "key" ? before.keyId : "";
  const overlap = durationFromMs(60_000);
  const { secret, apiKey } = await invoke(here.admin, rotateApiKey, { id, overlap }, call);
  expect(secret.startsWith(`${apiKey!.prefix}_`)).toBe(true);
  expect(await there.who(secret)).toMatchObject({ keyId: id, expiresAt: undefined });
  const until = new Date(time.now + 60_000);
  await expect.poll(() => there.who(old), { timeout: 1000 }).toMatchObject({ keyId: id, expiresAt: until });
  expect(await there.auth.stillValid(before)).toBe(true);
  time.now += 60_000;
  await expect(there.who(old)).rejects.toMatchObject(reason("CREDENTIAL_EXPIRED"));
  await there.who(secret);
});

test("a rotation without overlap ends the old secret and its streams at once, as does a second rotation", async () => {
  const node = await testNode(services);
  const { apiKey: first, call } = await newTenant(node);
  const principal = await node.who(first);
  const id = principal.kind === "key" ? principal.keyId : "";
  const { secret: second } = await invoke(node.admin, rotateApiKey, { id }, call);
  await expect(node.who(first)).rejects.toMatchObject(reason("CREDENTIAL_INVALID"));
  expect(await node.auth.stillValid(principal)).toBe(false);
  const overlap = durationFromMs(60_000);
  const { secret: third } = await invoke(node.admin, rotateApiKey, { id, overlap }, call);
  await node.who(second);
  const { secret: fourth } = await invoke(node.admin, rotateApiKey, { id, overlap }, call);
  await expect(node.who(second)).rejects.toMatchObject(reason("CREDENTIAL_INVALID"));
  await node.who(third);
  await node.who(fourth);
  await invoke(node.admin, revokeApiKey, { id }, call);
  for (const secret of [third, fourth]) {
    await expect(node.who(secret)).rejects.toMatchObject(reason("CREDENTIAL_INVALID"));
  }
  await expect(invoke(node.admin, rotateApiKey, { id }, call)).rejects.toMatchObject(reason("NOT_FOUND"));
});

test("a key gives nobody scopes that it lacks, neither by a new key nor by the new secret of a stronger one", async () => {
  const node = await testNode(services);
  const { tenantId, apiKey } = await newTenant(node);
  const strong = await node.who(apiKey);
  const weak = fakeCall({ tenantId, principal: keyOf(tenantId, new Set([Scope.ADMIN, Scope.INBOX])) });
  const create = (scopes: Scope[]) => invoke(node.admin, createApiKey, { displayName: "k", scopes }, weak);
  await create([Scope.INBOX]);
  await expect(create([Scope.INBOX, Scope.SEND])).rejects.toMatchObject({
    ...reason("SCOPE_MISSING"),
    metadata: { scope: "SCOPE_SEND" },
  });
  const id = strong.kind === "key" ? strong.keyId : "";
  await expect(invoke(node.admin, rotateApiKey, { id }, weak)).rejects.toMatchObject(reason("SCOPE_MISSING"));
  await node.who(apiKey);
});

test("a suspended tenant's keys are refused on every server, and work again when it is resumed", async () => {
  const here = await testNode(services);
  const there = await testNode(services);
  const { tenantId, apiKey } = await newTenant(here);
  const principal = await there.who(apiKey);
  const operator = fakeCall({ tenantId: "", principal: await here.who(OPERATOR_KEY) });
  await invoke(here.admin, updateTenant, { id: tenantId, state: 2 }, operator);
  await expect(here.who(apiKey)).rejects.toMatchObject(reason("TENANT_SUSPENDED"));
  await expect.poll(() => there.auth.stillValid(principal), { timeout: 1000, interval: 10 }).toBe(false);
  await expect(there.who(apiKey)).rejects.toMatchObject(reason("TENANT_SUSPENDED"));
  // Only the holder of the secret learns that.
  const forged = `${apiKey.slice(0, -1)}${apiKey.endsWith("A") ? "E" : "A"}`;
  await expect(there.who(forged)).rejects.toMatchObject(reason("CREDENTIAL_INVALID"));
  await invoke(here.admin, updateTenant, { id: tenantId, state: 1 }, operator);
  await expect.poll(() => there.auth.stillValid(principal), { timeout: 1000, interval: 10 }).toBe(true);
  await there.who(apiKey);
});

test("the operator chooses a tenant that exists; a key only its own", async () => {
  const node = await testNode(services, {
    config: { operatorKeys: ["another-operator-key-0123456789abc", OPERATOR_KEY] },
  });
  const { tenantId, apiKey } = await newTenant(node);
  const other = await newTenant(node);
  expect(await node.who(OPERATOR_KEY)).toEqual({ kind: "operator", tenantId: undefined });
  expect(await node.who(OPERATOR_KEY, tenantId.toUpperCase())).toEqual({ kind: "operator", tenantId });
  expect(await node.who("another-operator-key-0123456789abc", tenantId)).toEqual({ kind: "operator", tenantId });
  for (const unknown of ["01890000-0000-7000-8000-000000000000", "*", "' or 1=1"]) {
    await expect(node.who(OPERATOR_KEY, unknown)).rejects.toMatchObject(reason("NOT_FOUND"));
  }
  expect(await node.who(apiKey, tenantId)).toMatchObject({ tenantId });
  await expect(node.who(apiKey, other.tenantId)).rejects.toMatchObject(reason("NOT_FOUND"));
  await expect(node.who(`${OPERATOR_KEY}x`)).rejects.toMatchObject(reason("CREDENTIAL_INVALID"));
  await expect(node.who(OPERATOR_KEY.slice(0, -1))).rejects.toMatchObject(reason("CREDENTIAL_INVALID"));
});

test("when the connection to NATS breaks, every copy is read again", async () => {
  const node = await testNode(services);
  const { apiKey } = await newTenant(node);
  await node.who(apiKey);
  const before = node.lookups();
  await node.broker.nats.reconnect();
  await expect
    .poll(async () => {
      await node.who(apiKey);
      return node.lookups();
    })
    .toBeGreaterThan(before);
});
