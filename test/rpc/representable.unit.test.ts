import { create, type MessageInitShape } from "@bufbuild/protobuf";
import { expect, test } from "vitest";
import { SendRequestSchema, UpdateNotificationRequestSchema } from "#gen/posthorn/v1/send_service_pb.ts";
import { unrepresentable } from "#src/rpc/representable.ts";
import { createViolations } from "#src/rpc/validate.ts";

const fieldOf = (request: MessageInitShape<typeof SendRequestSchema>) =>
  unrepresentable(SendRequestSchema, create(SendRequestSchema, request))?.field;
const at = (seconds: bigint, nanos = 0) => ({ schedule: { case: "scheduleTime" as const, value: { seconds, nanos } } });
const within = (seconds: bigint, nanos = 0) => ({ dedupWindow: { seconds, nanos } });

test.each([
  ["the first second", at(-62_135_596_800n), undefined],
  ["a second before it", at(-62_135_596_801n), "schedule_time"],
  ["the last nanosecond", at(253_402_300_799n, 999_999_999), undefined],
  ["a second after it", at(253_402_300_800n), "schedule_time"],
  ["far beyond any calendar", at(2n ** 62n), "schedule_time"],
  ["negative nanos", at(5n, -1), "schedule_time"],
  ["a second of nanos", at(5n, 1_000_000_000), "schedule_time"],
  ["a negative duration", within(-5n, -5), undefined],
  ["a duration with two signs", within(5n, -5), "dedup_window"],
  ["a duration beyond 10,000 years", within(315_576_000_001n), "dedup_window"],
  ["a finite number", { content: { title: "Hi", data: { deep: [{ n: 1e308 }] } } }, undefined],
  ["an infinite one", { content: { title: "Hi", data: { deep: [{ n: Number.POSITIVE_INFINITY }] } } }, "content.data"],
])("%s", (_, request, field) => expect(fieldOf(request as MessageInitShape<typeof SendRequestSchema>)).toBe(field));

test("a request with such a value is refused beside its other faults", () => {
  const request = create(UpdateNotificationRequestSchema, { id: "no-uuid", expireTime: { seconds: 2n ** 62n } });
  const fields = createViolations()(UpdateNotificationRequestSchema, request).map(({ field }) => field);
  expect(fields).toEqual(["id", "expire_time"]);
});
