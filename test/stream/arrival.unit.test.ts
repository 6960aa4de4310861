import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import { BinaryWriter } from "@bufbuild/protobuf/wire";
import fc from "fast-check";
import { expect, test } from "vitest";
import { LiveEvent_Kind, LiveEventSchema } from "#gen/posthorn/internal/v1/live_pb.ts";
import { InboxCountsSchema, InboxEntrySchema } from "#gen/posthorn/v1/inbox_service_pb.ts";
import type { Priority } from "#gen/posthorn/v1/notification_pb.ts";
import { NotificationArrivedSchema, SubscribeResponseSchema } from "#gen/posthorn/v1/stream_service_pb.ts";
import { type InboxEntryRow, toEntry } from "#src/inbox/entry.ts";
import { type Arrival, encodeLiveArrival, encodeReplayed } from "#src/stream/arrival.ts";
import { encodeCursor } from "#src/stream/cursor.ts";
import { ReceivedEvent } from "#src/stream/live-event.ts";
import { batch, content, count, counts, date, entryRow, priority, sequence, text } from "../support/entry-rows.ts";

// The hand-written encoding against the library's.

const arrival: fc.Arbitrary<Arrival> = fc.record({
  notificationId: fc.uuid(),
  userId: text,
  seq: sequence,
  epoch: count,
  type: text,
  category: text,
  priority,
  content,
  tags: fc.array(text, { maxLength: 4 }),
  senderId: text,
  arrivedAt: date,
  expiresAt: fc.option(date, { nil: undefined }),
  batch: fc.option(batch),
  confirmationRequired: fc.option(fc.boolean()),
  counts,
});

const row: fc.Arbitrary<InboxEntryRow> = entryRow({});

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
