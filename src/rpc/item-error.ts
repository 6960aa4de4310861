import { create } from "@bufbuild/protobuf";
import { type ItemError, ItemErrorSchema } from "#gen/posthorn/v1/error_pb.ts";
import type { Fault } from "#src/errors.ts";
import { fieldsOf, messageOf } from "./fault-details.ts";

/** What a call of its own would have been answered, for one item of a batch: it may hold thousands of wrong fields. */
export function itemError(fault: Fault): ItemError {
  return create(ItemErrorSchema, {
    code: fault.code,
    reason: fault.reason,
    message: messageOf(fault),
    fieldViolations: fieldsOf(fault),
  });
}
