import { create, fromBinary } from "@bufbuild/protobuf";
import fc from "fast-check";
import { expect, test } from "vitest";
import { ListEntriesResponseSchema } from "#gen/posthorn/v1/inbox_service_pb.ts";
import { toGroupedEntry } from "#src/inbox/entry.ts";
import type { GroupedEntryRow } from "#src/inbox/grouped.ts";
import { encodeEntries } from "#src/inbox/wire.ts";
import { count, counts, entryRow, sequence, text } from "../support/entry-rows.ts";

const group = fc.record({
  key: fc.option(text),
  size: count,
  unread: count,
  senders: fc.array(text, { maxLength: 3 }),
  senderCount: count,
  firstSeq: sequence,
});
const row: fc.Arbitrary<GroupedEntryRow> = entryRow({ group: fc.option(group) });

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
