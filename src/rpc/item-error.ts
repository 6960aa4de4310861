import { create } from "@bufbuild/protobuf";
import { type ItemError, ItemErrorSchema } from "#gen/posthorn/v1/error_pb.ts";
import type { Fault } from "#src/errors.ts";

/** What a call of its own would have been answered, for one item of a batch. */
export function itemError(fault: Fault): ItemError {
  return create(ItemErrorSchema, {
    code: fault.code,
    reason: fault.reason,
    message: fault.message,
    fieldViolations: fault.fields,
  });
}
