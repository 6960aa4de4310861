import postgres from "postgres";
import { afterAll, expect, test } from "vitest";
import { Code } from "#src/errors.ts";
import { shipped } from "../../support/descriptors.ts";
import { platformOfFile } from "../../support/platform.ts";
import { refusalOf } from "../../support/refusal.ts";
import { testServices } from "../../support/services.ts";

const services = await testServices();
const { key, tenant } = await platformOfFile({ services });
const sql = postgres(services.databaseUrl, { max: 1, onnotice: () => undefined });
afterAll(() => sql.end());
const message = "acme.Shipped";
const GOOD = shipped("string order = 1;");
/** No server of today takes it: it stands for what an earlier one took. */
const REFUSED = shipped('string order = 1 [(buf.validate.field).cel = {id: "r", message: "m", expression: "this ("}];');

let types = 0;
async function newType(): Promise<string> {
  const type = `unusable-${++types}`;
  await key.types.createType({ type: { key: type } });
  await key.types.pushPayload({ type, descriptorSet: GOOD, message });
  return type;
}
async function unusableType(): Promise<string> {
  const type = await newType();
  const { count } = await sql`update payload_contracts set descriptor_set = ${Buffer.from(REFUSED)}
    where tenant_id = ${tenant.tenantId} and type = ${type}`;
  expect(count).toBe(1);
  return type;
}
const item = (type: string) => ({
  to: { userIds: [`of-${type}`] },
  type,
  content: { title: "t", ...(type !== "general" && { data: { order: "A" } }) },
});

test("of a contract that cannot be used any more only its own items are refused, by what tells which", async () => {
  const [bad, good] = [await unusableType(), await newType()];
  const { results } = await key.send.sendBatch({ items: [item(bad), item(good), item("general"), item(bad)] });
  expect(results.map(({ result }) => result.case)).toEqual(["error", "response", "response", "error"]);
  const { entries } = await key.inbox.listEntries({ userId: `of-${bad}` });
  expect(entries).toEqual([]);
  for (let again = 0; again < 2; again++)
    expect(await refusalOf(key.send.send(item(bad)))).toMatchObject({
      code: Code.FAILED_PRECONDITION,
      reason: "PAYLOAD_CONTRACT_UNUSABLE",
      metadata: { type: bad, version: "1" },
      message: expect.stringMatching(/version 1 .* type "unusable-\d+".*PushPayload/),
    });
});

test("the check says why, and a push that can be used mends it", async () => {
  const bad = await unusableType();
  await refusalOf(key.send.send(item(bad)));
  const why = await refusalOf(key.types.checkPayload({ type: bad, descriptorSet: REFUSED, message }));
  expect(why).toMatchObject({ reason: "INVALID_REQUEST", fields: ["descriptor_set"] });
  // Compared with what cannot be used as with any other version.
  const other = await refusalOf(
    key.types.pushPayload({ type: bad, descriptorSet: shipped("bytes order = 1;"), message }),
  );
  expect(other.reason).toBe("PAYLOAD_INCOMPATIBLE");
  const mended = shipped("string order = 1; int32 parcels = 2;");
  expect((await key.types.pushPayload({ type: bad, descriptorSet: mended, message })).contract?.version).toBe(2);
  expect((await key.send.send(item(bad))).results).toHaveLength(1);
});
