import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import { BinaryWriter } from "@bufbuild/protobuf/wire";
import fc from "fast-check";
import { expect, test } from "vitest";
import { LiveEvent_Kind, LiveEventSchema } from "#gen/posthorn/internal/v1/live_pb.ts";
import { BatchKind } from "#gen/posthorn/v1/batch_service_pb.ts";
import { InboxCountsSchema, InboxEntrySchema } from "#gen/posthorn/v1/inbox_service_pb.ts";
import { ContentSchema, Priority } from "#gen/posthorn/v1/notification_pb.ts";
import { NotificationArrivedSchema, SubscribeResponseSchema } from "#gen/posthorn/v1/stream_service_pb.ts";
import { type InboxEntryRow, toEntry } from "#src/inbox/entry.ts";
import { type Arrival, encodeLiveArrival, encodeReplayed } from "#src/stream/arrival.ts";
import { encodeCursor } from "#src/stream/cursor.ts";
import { ReceivedEvent } from "#src/stream/live-event.ts";

// The hand-written encoding against the library's.

const text = fc.string({ unit: "binary", maxLength: 200 });
const date = fc.date({ min: new Date(0), max: new Date("9999-12-31T23:59:59.999Z"), noInvalidDate: true });
const count = fc.oneof(fc.nat(), fc.nat({ max: 3 }));
const content = fc.record({ title: text, body: text }).map((value) => create(ContentSchema, value));

const batch = fc.record({
  id: fc.uuid(),
  kind: fc.constantFrom(BatchKind.BATCH, BatchKind.DIGEST),
  size: fc.nat(),
  notificationIds: fc.array(fc.uuid(), { maxLength: 4 }),
});

const arrival: fc.Arbitrary<Arrival> = fc.record({
  notificationId: fc.uuid(),
  userId: text,
  seq: fc.oneof(count, fc.maxSafeNat()),
  epoch: count,
  type: text,
  category: text,
  priority: fc.constantFrom(Priority.LOW, Priority.CRITICAL),
  content: content.map((value) => toBinary(ContentSchema, value)),
  tags: fc.array(text, { maxLength: 4 }),
  senderId: text,
  arrivedAt: date,
  expiresAt: fc.option(date, { nil: undefined }),
  batch: fc.option(batch),
  confirmationRequired: fc.option(fc.boolean()),
  counts: fc.record({ unread: count, unseen: count, total: count, archived: count, snoozed: count }),
});

const row: fc.Arbitrary<InboxEntryRow> = fc.record({
  userId: text,
  notificationId: fc.uuid(),
  seq: count,
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
  content: fc.option(content.map((value) => toBinary(ContentSchema, value))),
  batch: fc.option(batch),
});

function asWritten(of: Arrival) {
  const row = { readAt: null, archivedAt: null, snoozedUntil: null, seen: false };
  const entry = toEntry({ ...of, ...row, tags: [...of.tags], expiresAt: of.expiresAt ?? null });
  const value = create(NotificationArrivedSchema, {
    entry,
    cursor: encodeCursor(of),
    counts: create(InboxCountsSchema, of.counts),
  });
  return create(SubscribeResponseSchema, { event: { case: "notification", value } });
}

test("an arrival reads back as the library would have written it", () => {
  fc.assert(
    fc.property(arrival, (of) => {
      const { response } = fromBinary(LiveEventSchema, encodeLiveArrival(of, false, new BinaryWriter()));
      const arrived = fromBinary(SubscribeResponseSchema, response);
      expect(toBinary(SubscribeResponseSchema, arrived)).toEqual(toBinary(SubscribeResponseSchema, asWritten(of)));
    }),
  );
});

test("a replayed entry reads back as the inbox lists it, with every field of an entry", () => {
  let filled = new Set<string>();
  fc.assert(
    fc.property(row, fc.nat(), (of, epoch) => {
      const { event } = fromBinary(SubscribeResponseSchema, encodeReplayed(of, epoch));
      // Content that is gone is left out of a list and empty in a stream.
      const entry = toEntry({ ...of, content: of.content ?? new Uint8Array() });
      const value = create(NotificationArrivedSchema, {
        entry,
        cursor: encodeCursor({ epoch, seq: of.seq }),
        replayed: true,
      });
      expect(event).toEqual({ case: "notification", value });
      for (const field of InboxEntrySchema.fields)
        if (entry[field.localName as keyof typeof entry]) filled = filled.add(field.localName);
    }),
  );
  // Groups are what lists make of entries: streams know nothing of them.
  const streamed = InboxEntrySchema.fields.map((field) => field.localName).filter((name) => name !== "group");
  expect([...filled].sort()).toEqual(streamed.sort());
});

test("a live event is the protobuf message it claims to be, and a hub reads it as such, one after the other", () => {
  const writer = new BinaryWriter();
  fc.assert(
    fc.property(arrival, fc.boolean(), (of, delivered) => {
      const bytes = encodeLiveArrival(of, delivered, writer);
      const expected = create(LiveEventSchema, {
        kind: LiveEvent_Kind.ARRIVAL,
        sequence: BigInt(of.seq),
        epoch: of.epoch,
        type: of.type,
        category: of.category,
        priority: of.priority as Priority,
        tags: [...of.tags],
        response: fromBinary(LiveEventSchema, bytes).response,
        delivered,
      });
      expect(fromBinary(LiveEventSchema, bytes)).toEqual(expected);
      const { kind, sequence, epoch, type, category, priority, tags, response, ...rest } = read(bytes);
      expect({ ...expected, sequence: Number(expected.sequence) }).toMatchObject({
        ...{ kind, sequence, epoch, type, category, priority, tags, response, ...rest },
      });
    }),
  );
});

test("an event that cannot be encoded leaves nothing behind for the next", () => {
  const writer = new BinaryWriter();
  const [good] = fc.sample(arrival, { numRuns: 1, seed: 1 });
  const broken = { ...good!, content: undefined as unknown as Uint8Array, seq: Number.NaN };
  expect(() => encodeLiveArrival(broken, true, writer)).toThrow();
  expect(encodeLiveArrival(good!, true, writer)).toEqual(encodeLiveArrival(good!, true, new BinaryWriter()));
});

test("an event of a later version, with fields that are not known here, is read all the same", () => {
  const bytes = new BinaryWriter()
    .raw(toBinary(LiveEventSchema, create(LiveEventSchema, { kind: LiveEvent_Kind.STATUS, category: "orders" })))
    .tag(99, 2)
    .string("news")
    .tag(100, 0)
    .uint32(7)
    .finish();
  expect(read(bytes)).toMatchObject({ kind: LiveEvent_Kind.STATUS, category: "orders" });
});

test("bytes that are no event are refused", () => {
  expect(() => new ReceivedEvent(Uint8Array.of(0x0a, 0xff))).toThrow();
});

function read(bytes: Uint8Array) {
  const { kind, sequence, epoch, type, category, priority, tags, response, delivered } = new ReceivedEvent(bytes);
  return { kind, sequence, epoch, type, category, priority, tags, response: response.bytes, delivered };
}
