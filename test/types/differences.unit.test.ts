import { create, toBinary } from "@bufbuild/protobuf";
import fc from "fast-check";
import { expect, test } from "vitest";
import { BatchRule_Mode, type NotificationType, NotificationTypeSchema } from "#gen/posthorn/v1/type_service_pb.ts";
import { differences } from "#src/types/differences.ts";

const between = (before: Partial<NotificationType>, after: Partial<NotificationType>) =>
  differences(
    NotificationTypeSchema,
    create(NotificationTypeSchema, before as NotificationType),
    create(NotificationTypeSchema, after as NotificationType),
  );

test("fields of messages are told by their path, lists as a whole, what is not set as nothing", () => {
  const before = create(NotificationTypeSchema, {
    displayName: "News",
    defaultChannels: [1],
    batching: { batchable: true, maxSize: 5, window: { seconds: 60n } },
  });
  const after = create(NotificationTypeSchema, {
    displayName: "The \u{1f4f0}",
    defaultChannels: [1, 2],
    batching: { batchable: true, maxSize: 7, mode: BatchRule_Mode.LEADING },
    escalation: {},
  });
  expect(differences(NotificationTypeSchema, before, after)).toEqual([
    { path: "display_name", before: '"News"', after: '"The \u{1f4f0}"' },
    { path: "default_channels", before: '["CHANNEL_IN_APP"]', after: '["CHANNEL_IN_APP","CHANNEL_EMAIL"]' },
    { path: "batching.max_size", before: "5", after: "7" },
    { path: "batching.window", before: '"60s"', after: "" },
    { path: "batching.mode", before: "", after: '"MODE_LEADING"' },
    { path: "escalation", before: "", after: "{}" },
  ]);
});

test("a long value is cut between characters, and a difference behind the cut is still one", () => {
  const long = "\u{1f4f0}".repeat(1200);
  const [change, ...rest] = between({ description: long }, { description: `${long}.` });
  expect(rest).toEqual([]);
  expect([...(change?.before ?? "")]).toHaveLength(1000);
  expect(change?.before).toMatch(/^"(\u{1f4f0})+…$/u);
  expect(change?.after).toBe(change?.before);
});

test("there is a difference exactly where two types are not the same, and the way back is its reverse", () => {
  const type = fc.record({
    displayName: fc.constantFrom("", "a", "b"),
    defaultPriority: fc.constantFrom(0, 2, 4),
    optIn: fc.boolean(),
    defaultChannels: fc.subarray([1, 2, 3]),
    batching: fc.option(
      fc.record({ batchable: fc.boolean(), maxSize: fc.constantFrom(0, 3), mode: fc.constantFrom(0, 1, 2) }),
      { nil: undefined },
    ),
  });
  fc.assert(
    fc.property(type, type, (one, other) => {
      const [left, right] = [one, other].map((each) => create(NotificationTypeSchema, each as object));
      if (left === undefined || right === undefined) return;
      const found = differences(NotificationTypeSchema, left, right);
      const equal =
        Buffer.compare(toBinary(NotificationTypeSchema, left), toBinary(NotificationTypeSchema, right)) === 0;
      expect(found.length === 0).toBe(equal);
      const back = differences(NotificationTypeSchema, right, left);
      expect(back).toEqual(found.map(({ path, before, after }) => ({ path, before: after, after: before })));
    }),
  );
});
