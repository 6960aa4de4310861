import { timestampDate } from "@bufbuild/protobuf/wkt";
import type { NotificationFilter } from "#gen/posthorn/v1/send_service_pb.ts";
import type { Filter } from "./queries.ts";

/** What a request asks for; absent fields ask for nothing. */
export function filterOf(filter: NotificationFilter | undefined): Filter {
  return {
    userId: filter?.userId || undefined,
    types: filter?.types ?? [],
    statuses: filter?.statuses ?? [],
    tag: filter?.tag || undefined,
    from: filter?.startTime === undefined ? undefined : timestampDate(filter.startTime),
    until: filter?.endTime === undefined ? undefined : timestampDate(filter.endTime),
    fanoutId: filter?.fanoutId || undefined,
    batchId: filter?.batchId || undefined,
  };
}

/** Whether it lets every notification of the tenant through. */
export function isEmpty(filter: Filter): boolean {
  return Object.values(filter).every((value) => value === undefined || (Array.isArray(value) && value.length === 0));
}
