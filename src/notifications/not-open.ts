import { ErrorReason } from "#gen/posthorn/v1/error_pb.ts";
import { Fault, type FieldFault } from "#src/errors.ts";
import { statusName } from "./names.ts";

/** NOTIFICATION_NOT_OPEN: it stands at a status where that cannot be done, or with `field`, where this of it cannot. */
export function notOpen(status: number, field?: FieldFault): Fault {
  return new Fault(ErrorReason.NOTIFICATION_NOT_OPEN, {
    metadata: { status: statusName(status).toUpperCase() },
    ...(field && { message: `${field.field}: ${field.description}`, fields: [field] }),
  });
}
