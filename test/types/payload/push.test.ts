import { createFileRegistry, fromBinary } from "@bufbuild/protobuf";
import { FileDescriptorSetSchema } from "@bufbuild/protobuf/wkt";
import { expect, test } from "vitest";
import { ErrorReason } from "#gen/posthorn/v1/error_pb.ts";
import { TypeService } from "#gen/posthorn/v1/type_service_pb.ts";
import { typeService } from "#src/services/type-service.ts";
import { shipped } from "../../support/descriptors.ts";
import { invoke } from "../../support/invoke.ts";
import { onPostgres } from "../../support/on-postgres.ts";
import { faultOf } from "../../support/rejection.ts";

const setup = await onPostgres();
const { sql, invalidations, tenant } = setup;
const service = typeService(setup);
const { createType, getType, deleteType, pushPayload, getPayload, listPayloads } = TypeService.method;

const ONE = shipped("string order = 1;");
const TWO = shipped("string order = 1; // A comment.\n int32 parcels = 2;");
const message = "acme.Shipped";

async function withType(key = "shipped") {
  const call = tenant();
  await invoke(service, createType, { type: { key } }, call);
  return call;
}

test("a message becomes the contract of a type, told by the type, listed and got", async () => {
  const call = await withType();
  const first = await invoke(service, pushPayload, { type: "shipped", descriptorSet: ONE, message }, call);
  expect(first).toMatchObject({ created: true, contract: { version: 1, message, creator: call.actor } });
  const second = await invoke(service, pushPayload, { type: "shipped", descriptorSet: TWO, message }, call);
  expect(second).toMatchObject({ created: true, contract: { version: 2 } });
  const { type } = await invoke(service, getType, { key: "shipped" }, call);
  expect(type).toMatchObject({ payloadMessage: message, payloadVersion: 2, revision: 3 });

  const page = await invoke(service, listPayloads, { type: "shipped", pageSize: 1 }, call);
  expect(page.contracts).toEqual([second.contract]);
  const rest = await invoke(
    service,
    listPayloads,
    { type: "shipped", pageSize: 1, pageToken: page.nextPageToken },
    call,
  );
  expect(rest).toMatchObject({ contracts: [first.contract], nextPageToken: "" });

  const got = await invoke(service, getPayload, { type: "shipped" }, call);
  expect(got.contract).toEqual(second.contract);
  const old = await invoke(service, getPayload, { type: "shipped", version: 1 }, call);
  expect(old.contract).toEqual(first.contract);
  // It builds by itself, and has lost nothing but the comments.
  const set = fromBinary(FileDescriptorSetSchema, got.descriptorSet);
  expect(set.file.every(({ sourceCodeInfo }) => sourceCodeInfo === undefined)).toBe(true);
  const fields = createFileRegistry(set)
    .getMessage(message)
    ?.fields.map(({ name }) => name);
  expect(fields).toEqual(["order", "parcels"]);
  const actions = await sql`select action from audit_entries where tenant_id = ${call.tenantId} order by id`;
  expect(actions.map(({ action }) => action)).toEqual(["type.create", "type.push_payload", "type.push_payload"]);
  expect(invalidations.published).toContainEqual(["type", call.tenantId, "shipped"]);
});

test("what is current is not pushed again; of concurrent pushes each gets a version of its own", async () => {
  const call = await withType();
  const push = (descriptorSet: Uint8Array, version = 0) =>
    invoke(service, pushPayload, { type: "shipped", descriptorSet, message, version }, call);
  const results = await Promise.all(Array.from({ length: 8 }, () => push(ONE)));
  expect(results.filter(({ created }) => created)).toHaveLength(1);
  expect(results.map(({ contract }) => contract?.version)).toEqual(Array(8).fill(1));
  expect((await faultOf(push(TWO, 2))).reason).toBe(ErrorReason.ETAG_MISMATCH);
  expect((await push(TWO, 1)).contract?.version).toBe(2);
});

test("a type that is not there, descriptors that are none and a message that is missing are refused", async () => {
  const call = await withType();
  const push = (request: object) =>
    faultOf(invoke(service, pushPayload, { type: "shipped", descriptorSet: ONE, message, ...request }, call));
  expect((await push({ type: "other" })).reason).toBe(ErrorReason.NOT_FOUND);
  const none = await push({ descriptorSet: new Uint8Array([1, 2, 3]) });
  expect(none.reason).toBe(ErrorReason.INVALID_REQUEST);
  expect(none.fields).toEqual(["descriptor_set"]);
  expect((await push({ message: "acme.Other" })).fields).toEqual(["descriptor_set"]);
  expect((await faultOf(invoke(service, getPayload, { type: "shipped" }, call))).reason).toBe(ErrorReason.NOT_FOUND);
});

test("descriptors go with their type, and a type of the same key begins anew", async () => {
  const call = await withType();
  await invoke(service, pushPayload, { type: "shipped", descriptorSet: ONE, message }, call);
  await invoke(service, deleteType, { key: "shipped" }, call);
  expect(await sql`select from payload_contracts where tenant_id = ${call.tenantId}`).toHaveLength(0);
  await invoke(service, createType, { type: { key: "shipped" } }, call);
  const { type } = await invoke(service, getType, { key: "shipped" }, call);
  expect(type).toMatchObject({ payloadMessage: "", payloadVersion: 0 });
  const { contracts } = await invoke(service, listPayloads, { type: "shipped" }, call);
  expect(contracts).toEqual([]);
});

test("a tenant's descriptors have an end together", async () => {
  const call = await withType();
  await sql`
    insert into payload_contracts (tenant_id, type, version, id, message, descriptor_set, digest, created_at, created_by)
    select ${call.tenantId}, 'shipped', n, gen_random_uuid(), 'x', convert_to(repeat('x', 262144), 'UTF8'), '', now(), 'x'
    from generate_series(1000, 1063) as t (n)`;
  const fault = await faultOf(invoke(service, pushPayload, { type: "shipped", descriptorSet: ONE, message }, call));
  expect(fault.reason).toBe(ErrorReason.TOO_MANY_RESOURCES);
});
