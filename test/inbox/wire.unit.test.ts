import { create, fromBinary, type JsonObject, toBinary } from "@bufbuild/protobuf";
import fc from "fast-check";
import { expect, test } from "vitest";
import { ListEntriesResponseSchema } from "#gen/posthorn/v1/inbox_service_pb.ts";
import { ContentSchema, Priority } from "#gen/posthorn/v1/notification_pb.ts";
import { toGroupedEntry } from "#src/inbox/entry.ts";
import type { GroupedEntryRow } from "#src/inbox/grouped.ts";
import { encodeEntries } from "#src/inbox/wire.ts";

const text = fc.string({ unit: "binary", maxLength: 50 });
const date = fc.date({ min: new Date(0), max: new Date("9999-12-31T23:59:59.999Z"), noInvalidDate: true });
const count = fc.oneof(fc.nat({ max: 2 ** 31 - 1 }), fc.nat({ max: 3 }));
const sequence = fc.oneof(count, fc.maxSafeNat());
const content = fc
  .record({ title: text, body: text, data: fc.constantFrom<JsonObject>({}, { count: 3, deep: { list: [null, "x"] } }) })
  .map((value) => toBinary(ContentSchema, create(ContentSchema, value)));
const group = fc.record({
  key: fc.option(text),
  size: count,
  unread: count,
  senders: fc.array(text, { maxLength: 3 }),
  senderCount: count,
  firstSeq: sequence,
});
const row: fc.Arbitrary<GroupedEntryRow> = fc.record({
  userId: text,
  notificationId: fc.uuid(),
  seq: sequence,
  type: text,
  category: text,
  priority: fc.constantFrom(Priority.LOW, Priority.CRITICAL),
  tags: fc.option(fc.array(text, { maxLength: 4 })),
  senderId: fc.option(text),
  arrivedAt: date,
  readAt: fc.option(date),
  archivedAt: fc.option(date),
  snoozedUntil: fc.option(date),
  expiresAt: fc.option(date),
  seen: fc.boolean(),
  confirmationRequired: fc.option(fc.boolean()),
  confirmedAt: fc.option(date),
  content: fc.option(content),
  batch: fc.option(
    fc.record({
      id: fc.uuid(),
      kind: fc.constantFrom(1, 2),
      size: count,
      notificationIds: fc.array(fc.uuid(), { maxLength: 3 }),
    }),
  ),
  group: fc.option(group),
});
const counts = fc.record({ unread: count, unseen: count, total: count, archived: count, snoozed: count });

test("a page reads back as the library would have written it", () => {
  fc.assert(
    fc.property(fc.array(row, { maxLength: 5 }), text, counts, (rows, nextPageToken, told) => {
      const asWritten = create(ListEntriesResponseSchema, {
        entries: rows.map(toGroupedEntry),
        nextPageToken,
        counts: told,
      });
      expect(fromBinary(ListEntriesResponseSchema, encodeEntries(rows, nextPageToken, told))).toEqual(asWritten);
    }),
  );
});
