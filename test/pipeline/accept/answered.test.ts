import { timestampFromDate } from "@bufbuild/protobuf/wkt";
import { expect, test } from "vitest";
import { MINUTE, steppedClock } from "../../batches/setup.ts";
import { shipped } from "../../support/descriptors.ts";
import { platformOfFile } from "../../support/platform.ts";
import { refusalOf } from "../../support/refusal.ts";
import { testServices } from "../../support/services.ts";

// A Send that was accepted has its first answer whenever it is repeated with its key, though it would be refused by now.

const services = await testServices();
const { clock, step: pass } = steppedClock();
const { key } = await platformOfFile({ services, clock });

const FIELDS = "int32 parcels = 1 [(buf.validate.field).int32.gt = 0];";
const push = (type: string, fields: string) =>
  key.types.pushPayload({ type, descriptorSet: shipped(fields), message: "acme.Shipped" });
const hour = () => timestampFromDate(new Date(clock().getTime() + 60 * MINUTE));
const content = { title: "On its way" };

test.each([
  {
    what: "its payload contract is stricter",
    prepare: (type: string) => push(type, FIELDS),
    more: { content: { ...content, data: { parcels: 2 } } },
    meanwhile: (type: string) => push(type, FIELDS.replace("gt = 0", "gt = 2")),
    reason: "INVALID_REQUEST",
  },
  {
    what: "its type is deleted",
    meanwhile: (type: string) => key.types.deleteType({ key: type }),
    reason: "NOT_FOUND",
  },
  {
    what: "its expire_time has passed",
    more: () => ({ expiry: { case: "expireTime" as const, value: hour() } }),
    meanwhile: async () => pass(61 * MINUTE),
    reason: "INVALID_REQUEST",
  },
])("$what", async ({ what, prepare, more, meanwhile, reason }) => {
  const type = what.replaceAll(" ", "-");
  await key.types.createType({ type: { key: type } });
  await prepare?.(type);
  const wait = { waitForDecision: { seconds: 10n } };
  const request = { to: { userIds: ["ada"] }, type, content, ...(typeof more === "function" ? more() : more), ...wait };
  const first = await key.send.send({ ...request, idempotencyKey: type });
  await meanwhile(type);
  const { results } = await key.send.send({ ...request, idempotencyKey: type });
  expect(results.map(({ notificationId }) => notificationId)).toEqual([first.results[0]?.notificationId]);
  const items = [
    { ...request, idempotencyKey: `${type}-2` },
    { ...request, idempotencyKey: type },
  ];
  const batch = await key.send.sendBatch({ items: items.map(({ waitForDecision: _, ...item }) => item) });
  expect(batch.results.map(({ result }) => result.case)).toEqual(["error", "response"]);
  const another = { ...request, content: { ...request.content, title: "Another" }, idempotencyKey: type };
  expect((await refusalOf(key.send.send(another))).reason).toBe(reason);
});
