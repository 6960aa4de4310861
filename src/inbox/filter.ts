import { type Timestamp, timestampDate } from "@bufbuild/protobuf/wkt";
import { type InboxFilter, InboxFilter_View } from "#gen/posthorn/v1/inbox_service_pb.ts";
import { invalidField } from "#src/errors.ts";

/** Which entries: all conditions hold, absent ones do not restrict. */
export type EntryFilter = {
  view: InboxFilter_View;
  unreadOnly: boolean;
  types: readonly string[];
  categories: readonly string[];
  tag: string | undefined;
  from: Date | undefined;
  before: Date | undefined;
  /** The sequence that its group began with. */
  group: number | undefined;
};

export const WHOLE_INBOX: EntryFilter = {
  view: InboxFilter_View.UNSPECIFIED,
  unreadOnly: false,
  types: [],
  categories: [],
  tag: undefined,
  from: undefined,
  before: undefined,
  group: undefined,
};

/** Throws INVALID_REQUEST for a time outside the years 1 to 9999, which Timestamp promises but does not enforce. */
export function readFilter(filter: InboxFilter | undefined): EntryFilter {
  if (filter === undefined) return WHOLE_INBOX;
  return {
    view: filter.view,
    unreadOnly: filter.unreadOnly,
    types: filter.types,
    categories: filter.categories,
    tag: filter.tag === "" ? undefined : filter.tag,
    from: instant("filter.start_time", filter.startTime),
    before: instant("filter.end_time", filter.endTime),
    group: filter.group === 0n ? undefined : Number(filter.group),
  };
}

/** What a page token is tied to: equal for filters that mean the same. */
export function filterKey(filter: EntryFilter): readonly unknown[] {
  return [
    filter.view,
    filter.unreadOnly,
    [...filter.types].sort(),
    [...filter.categories].sort(),
    filter.tag ?? "",
    filter.from?.getTime() ?? "",
    filter.before?.getTime() ?? "",
    filter.group ?? "",
  ];
}

const YEAR_1 = -62_135_596_800;
const YEAR_10000 = 253_402_300_800;

function instant(field: string, time: Timestamp | undefined): Date | undefined {
  if (time === undefined) return undefined;
  const seconds = Number(time.seconds);
  if (seconds < YEAR_1 || seconds >= YEAR_10000 || time.nanos < 0 || time.nanos > 999_999_999) {
    throw invalidField(field, "is not a time between the years 1 and 9999");
  }
  return timestampDate(time);
}
