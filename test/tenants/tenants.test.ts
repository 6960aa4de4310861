import { randomBytes } from "node:crypto";
import postgres from "postgres";
import { expect, test } from "vitest";
import { AdminService } from "#gen/posthorn/v1/admin_service_pb.ts";
import { resealSecrets } from "#src/auth/reseal.ts";
import { createTenant } from "#src/tenants/tenants.ts";
import { MASTER_KEY, newTenant, testNode } from "../auth/platform.ts";
import { ALL_SCOPES } from "../support/call.ts";
import { invoke } from "../support/invoke.ts";
import { freshServices, testServices } from "../support/services.ts";

const services = await testServices();
const { createUserToken } = AdminService.method;

async function rows(databaseUrl: string, table: string, tenantId: string): Promise<Record<string, unknown>[]> {
  const sql = postgres(databaseUrl, { max: 1 });
  try {
    return await sql`select * from ${sql(table)} where tenant_id = ${tenantId}`;
  } finally {
    await sql.end();
  }
}

test("a tenant begins with the type general, an issuer of its own and a key that may do everything", async () => {
  const node = await testNode(services);
  const { tenantId, apiKey } = await newTenant(node);
  expect(await node.who(apiKey)).toMatchObject({ kind: "key", tenantId, scopes: ALL_SCOPES });
  expect(await rows(services.databaseUrl, "types", tenantId)).toMatchObject([{ key: "general", revision: 1 }]);
  const [issuer] = await rows(services.databaseUrl, "token_issuers", tenantId);
  expect(issuer).toMatchObject({ issuer: `posthorn:${tenantId}`, audience: "posthorn" });
});

test("a tenant whose creation fails half-way leaves nothing", async () => {
  const node = await testNode(services);
  const failing = {
    ...node.deps,
    random: () => {
      throw new Error("no randomness");
    },
  };
  const made: string[] = [];
  const newId = () => {
    made.push(node.deps.newId());
    return made.at(-1)!;
  };
  await expect(createTenant({ ...failing, newId }, "operator", "Third")).rejects.toThrow("no randomness");
  expect(await rows(services.databaseUrl, "types", made[0]!)).toEqual([]);
});

test("the issuer's secret rests sealed, for its row alone, and the master key can be replaced", async () => {
  await using own = await freshServices();
  const node = await testNode(own);
  const { tenantId, call } = await newTenant(node);
  const other = await newTenant(node);
  const { token } = await invoke(node.admin, createUserToken, { userId: "ann" }, call);

  const next = randomBytes(32);
  const rotated = await testNode(own, { masterKey: next, previousKeys: [MASTER_KEY] });
  expect(await rotated.who(token)).toMatchObject({ tenantId });
  expect(await resealSecrets(rotated.store, rotated.deps.sealer)).toBe(2);
  expect(await resealSecrets(rotated.store, rotated.deps.sealer)).toBe(0);

  const without = await testNode(own, { masterKey: next });
  expect(await without.who(token)).toMatchObject({ tenantId });
  const stale = await testNode(own);
  await expect(stale.who(token)).rejects.toThrow("not configured");

  const sql = postgres(own.databaseUrl, { max: 1 });
  try {
    // Somebody with the database moves a secret that they may know to another tenant's row.
    await sql`
      update token_issuers set sealed_secret = (select sealed_secret from token_issuers where tenant_id = ${other.tenantId})
      where tenant_id = ${tenantId}`;
  } finally {
    await sql.end();
  }
  const fresh = await testNode(own, { masterKey: next });
  await expect(fresh.who(token)).rejects.toThrow();
});
