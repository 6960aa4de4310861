import { create, type JsonObject, toBinary } from "@bufbuild/protobuf";
import fc from "fast-check";
import { BatchKind } from "#gen/posthorn/v1/batch_service_pb.ts";
import { ContentSchema, Priority } from "#gen/posthorn/v1/notification_pb.ts";
import type { InboxEntryRow } from "#src/inbox/entry.ts";

// Rows of inboxes, as properties of what encodes them want them.

export const text = fc.string({ unit: "binary", maxLength: 100 });
export const date = fc.date({ min: new Date(0), max: new Date("9999-12-31T23:59:59.999Z"), noInvalidDate: true });
export const count = fc.oneof(fc.nat(), fc.nat({ max: 3 }));
export const sequence = fc.oneof(count, fc.maxSafeNat());
export const counts = fc.record({ unread: count, unseen: count, total: count, archived: count, snoozed: count });

/** Encoded posthorn.v1.Content. */
export const content = fc
  .record({ title: text, body: text, data: fc.constantFrom<JsonObject>({}, { count: 3, deep: { list: [null, "x"] } }) })
  .map((value) => toBinary(ContentSchema, create(ContentSchema, value)));

export const batch = fc.record({
  id: fc.uuid(),
  kind: fc.constantFrom(BatchKind.BATCH, BatchKind.DIGEST),
  size: count,
  notificationIds: fc.array(fc.uuid(), { maxLength: 4 }),
});

export const priority = fc.constantFrom(Priority.LOW, Priority.CRITICAL);

const entry = {
  userId: text,
  notificationId: fc.uuid(),
  seq: sequence,
  type: text,
  category: text,
  priority,
  tags: fc.option(fc.array(text, { maxLength: 4 })),
  senderId: fc.option(text),
  arrivedAt: date,
  readAt: fc.option(date),
  archivedAt: fc.option(date),
  snoozedUntil: fc.option(date),
  expiresAt: fc.option(date),
  updatedAt: fc.option(date),
  seen: fc.boolean(),
  confirmationRequired: fc.option(fc.boolean()),
  confirmedAt: fc.option(date),
  content: fc.option(content),
  batch: fc.option(batch),
};

/** A row, with what else is to be in it. */
export function entryRow<T>(more: { [K in keyof T]: fc.Arbitrary<T[K]> }): fc.Arbitrary<InboxEntryRow & T> {
  return fc.record({ ...entry, ...more }) as fc.Arbitrary<InboxEntryRow & T>;
}
