import { ErrorReason } from "#gen/posthorn/v1/error_pb.ts";
import { Code, Fault, type FieldFault, invalidRequest } from "#src/errors.ts";
import { isDependencyDown } from "./dependency-errors.ts";
import { MALFORMED } from "./oversize/bounds.ts";

/**
 * What a caller is told about anything that was thrown. Faults speak for themselves; a dependency out of reach is
 * UNAVAILABLE; the rest is INTERNAL with the request id, and its cause stays in the log.
 */
export function toFault(error: unknown, requestId: string): Fault {
  if (error instanceof Fault) return error.reason === ErrorReason.INTERNAL ? internal(error, requestId) : error;
  if (isDependencyDown(error)) return new Fault(ErrorReason.DEPENDENCY_UNAVAILABLE, { cause: error });
  return internal(error, requestId);
}

function internal(cause: unknown, requestId: string): Fault {
  return new Fault(ErrorReason.INTERNAL, { metadata: { request_id: requestId }, cause });
}

/**
 * What a caller is told when the protocol library refuses a request before a handler sees it: too large, or unreadable.
 *
 * @param code the library's status code (google.rpc.Code)
 * @param hint what was wrong with it, if that helps the caller; shortened
 * @param field the field that cannot be read; empty: the request as a whole
 */
export function unreadable(code: number, hint = "", field = ""): Fault {
  switch (code) {
    case Code.CANCELLED:
      return new Fault(ErrorReason.CANCELLED);
    case Code.DEADLINE_EXCEEDED:
      return new Fault(ErrorReason.DEADLINE_EXCEEDED);
    case Code.RESOURCE_EXHAUSTED:
      return new Fault(ErrorReason.MESSAGE_TOO_LARGE);
    default: {
      const description = hint.slice(0, 300).toWellFormed();
      const said = [field, description].filter((part) => part !== "").join(": ");
      return new Fault(ErrorReason.INVALID_REQUEST, {
        message: `The request cannot be read${said === "" ? "" : `: ${said}`}.`,
        fields: [{ field, description: description || "cannot be read" }],
      });
    }
  }
}

/** What a caller is told of what `oversizeBytes` found: a large request that is malformed reads as a small one does. */
export function refusedUndecoded(found: FieldFault): Fault {
  return found.description === MALFORMED ? malformed(found.field) : invalidRequest([found]);
}

/** What a caller is told of bytes that are no message; the field is empty where it is the request as a whole. */
export function malformed(field: string): Fault {
  return unreadable(Code.INVALID_ARGUMENT, field === "" ? "" : MALFORMED, field);
}
