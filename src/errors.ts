import { ErrorReason } from "#gen/posthorn/v1/error_pb.ts";

/** gRPC status codes (google.rpc.Code); Connect uses the same numbers. */
export const Code = {
  CANCELLED: 1,
  UNKNOWN: 2,
  INVALID_ARGUMENT: 3,
  DEADLINE_EXCEEDED: 4,
  NOT_FOUND: 5,
  ALREADY_EXISTS: 6,
  PERMISSION_DENIED: 7,
  RESOURCE_EXHAUSTED: 8,
  FAILED_PRECONDITION: 9,
  ABORTED: 10,
  OUT_OF_RANGE: 11,
  UNIMPLEMENTED: 12,
  INTERNAL: 13,
  UNAVAILABLE: 14,
  UNAUTHENTICATED: 16,
} as const;
export type Code = (typeof Code)[keyof typeof Code];

type Rule = {
  code: Code;
  /** Whether the same request may succeed later; if so RetryInfo is sent. */
  retry: boolean;
  /** What a person reads when the thrower says nothing more specific. */
  message: string;
};

type KnownReason = (typeof ErrorReason)[Exclude<keyof typeof ErrorReason, "UNSPECIFIED">];

/** The one table of errors: every reason of the contract, its code, whether to retry, and what to say. */
export const ERRORS: Record<KnownReason, Rule> = {
  [ErrorReason.INVALID_REQUEST]: rule(Code.INVALID_ARGUMENT, "The request breaks a rule of the contract."),
  [ErrorReason.INVALID_PAGE_TOKEN]: rule(
    Code.INVALID_ARGUMENT,
    "The page token is damaged or belongs to a request with other filters. Start again without it.",
  ),
  [ErrorReason.INVALID_FIELD_MASK]: rule(Code.INVALID_ARGUMENT, "The update mask names a field that does not exist."),
  [ErrorReason.CREDENTIAL_MISSING]: rule(Code.UNAUTHENTICATED, "Send `authorization: Bearer <API key or user token>`."),
  [ErrorReason.CREDENTIAL_INVALID]: rule(Code.UNAUTHENTICATED, "The credential is not valid."),
  [ErrorReason.CREDENTIAL_EXPIRED]: rule(Code.UNAUTHENTICATED, "The credential has expired."),
  [ErrorReason.SCOPE_MISSING]: rule(Code.PERMISSION_DENIED, "The API key lacks the scope for this call."),
  [ErrorReason.CALLER_NOT_ALLOWED]: rule(Code.PERMISSION_DENIED, "This kind of credential may not make this call."),
  [ErrorReason.NOT_FOUND]: rule(Code.NOT_FOUND, "There is no such resource."),
  [ErrorReason.ALREADY_EXISTS]: rule(Code.ALREADY_EXISTS, "It already exists."),
  [ErrorReason.IDEMPOTENCY_KEY_REUSED]: rule(
    Code.ALREADY_EXISTS,
    "The idempotency key was used for a different request. Use a new key for a new request.",
  ),
  [ErrorReason.NOTIFICATION_NOT_OPEN]: rule(Code.FAILED_PRECONDITION, "Nothing of the notification waits any more."),
  [ErrorReason.TENANT_SUSPENDED]: rule(Code.FAILED_PRECONDITION, "The tenant is suspended."),
  [ErrorReason.ETAG_MISMATCH]: rule(Code.ABORTED, "It was changed by somebody else. Read it again and retry."),
  [ErrorReason.API_LIMIT_EXCEEDED]: rule(Code.RESOURCE_EXHAUSTED, "The request limit is used up.", true),
  [ErrorReason.OVERLOADED]: rule(Code.RESOURCE_EXHAUSTED, "The server has too much in hand. Retry later.", true),
  [ErrorReason.MESSAGE_TOO_LARGE]: rule(
    Code.RESOURCE_EXHAUSTED,
    "The message is larger than the server accepts. Send less at once.",
  ),
  [ErrorReason.TOO_MANY_STREAMS]: rule(
    Code.RESOURCE_EXHAUSTED,
    "The user has too many open streams. Close one first.",
    true,
  ),
  [ErrorReason.DEPENDENCY_UNAVAILABLE]: rule(
    Code.UNAVAILABLE,
    "The service cannot do this right now. Retry; a Send with the same idempotency key.",
    true,
  ),
  [ErrorReason.SHUTTING_DOWN]: rule(Code.UNAVAILABLE, "The server is shutting down. Connect again.", true),
  [ErrorReason.DEADLINE_EXCEEDED]: rule(Code.DEADLINE_EXCEEDED, "The deadline passed before the answer was ready."),
  [ErrorReason.CANCELLED]: rule(Code.CANCELLED, "The caller cancelled."),
  [ErrorReason.UNKNOWN_METHOD]: rule(Code.UNIMPLEMENTED, "There is no such method."),
  [ErrorReason.INTERNAL]: rule(Code.INTERNAL, "Something went wrong on the server. Report the request id."),
  [ErrorReason.NOTIFICATION_NOT_DELIVERED]: rule(
    Code.FAILED_PRECONDITION,
    "The notification has not reached its recipient, so nobody can have confirmed it.",
  ),
  [ErrorReason.LIMIT_OF_CALL]: rule(Code.OUT_OF_RANGE, "The request asks for more than one call may do."),
  [ErrorReason.TOO_MANY_RESOURCES]: rule(
    Code.RESOURCE_EXHAUSTED,
    "There are as many of these as the server allows. Delete some first.",
  ),
  [ErrorReason.PAYLOAD_INCOMPATIBLE]: rule(Code.FAILED_PRECONDITION, "The payload contract would break what is there."),
  [ErrorReason.PAYLOAD_CONTRACT_UNUSABLE]: rule(
    Code.FAILED_PRECONDITION,
    "The server cannot use the payload contract of the type any more. Push a version that it can use.",
  ),
  [ErrorReason.TYPE_SUNSET]: rule(Code.FAILED_PRECONDITION, "The type is not sent any more."),
};

function rule(code: Code, message: string, retry = false): Rule {
  return { code, retry, message };
}

export type FieldFault = { field: string; description: string };

export type FaultDetails = {
  /** Replaces the table's message; never put caller text in it unbounded. */
  message?: string;
  /** Facts for programs, sent as ErrorInfo.metadata. */
  metadata?: Record<string, string>;
  /** Refused fields, sent as BadRequest. */
  fields?: FieldFault[];
  /** Sent as RetryInfo. Default 1,000 for retryable reasons. */
  retryAfterMs?: number;
  /** Sent as QuotaFailure. */
  quota?: { subject: string; description: string }[];
  /** Logged, never sent. */
  cause?: unknown;
};

/** A refusal the caller is told about. Anything else that is thrown becomes INTERNAL and is logged. */
export class Fault extends Error {
  readonly reason: KnownReason;
  readonly code: Code;
  readonly metadata: Record<string, string>;
  readonly fields: FieldFault[];
  readonly retryAfterMs: number | undefined;
  readonly quota: { subject: string; description: string }[];

  constructor(reason: KnownReason, details: FaultDetails = {}) {
    const { code, retry, message } = ERRORS[reason];
    super(details.message ?? message, { cause: details.cause });
    this.name = "Fault";
    this.reason = reason;
    this.code = code;
    this.metadata = details.metadata ?? {};
    this.fields = details.fields ?? [];
    this.retryAfterMs = retry ? (details.retryAfterMs ?? 1000) : undefined;
    this.quota = details.quota ?? [];
  }
}

/** INVALID_REQUEST about one field: its path, what is wrong, and how to mend it. */
export function invalidField(field: string, description: string): Fault {
  return new Fault(ErrorReason.INVALID_REQUEST, {
    message: `${field}: ${description}`,
    fields: [{ field, description }],
  });
}

/** INVALID_REQUEST about several fields: it names every one, and its message the first. */
export function invalidRequest(fields: readonly FieldFault[]): Fault {
  const [first] = fields;
  const path = first?.field === "" ? "request" : first?.field;
  const more = fields.length > 1 ? ` (and ${fields.length - 1} more)` : "";
  return new Fault(ErrorReason.INVALID_REQUEST, {
    ...(first === undefined ? {} : { message: `${path}: ${first.description}${more}` }),
    fields: [...fields],
  });
}

/** What `work` refuses of fields, with the path of what they are in before theirs. */
export function within<T>(path: string, work: () => T): T {
  try {
    return work();
  } catch (error) {
    if (!(error instanceof Fault) || error.fields.length === 0) throw error;
    throw invalidRequest(error.fields.map(({ field, description }) => ({ field: `${path}.${field}`, description })));
  }
}

/** TOO_MANY_RESOURCES of a kind; `mend` says what helps. */
export function tooMany(resource: string, limit: number, mend: string): Fault {
  return new Fault(ErrorReason.TOO_MANY_RESOURCES, {
    message: `There are ${limit} ${resource}s already, which is the most that are allowed. ${mend}`,
    metadata: { resource, limit: `${limit}` },
    quota: [{ subject: resource, description: `at most ${limit}` }],
  });
}

/** NOT_FOUND of a kind of resource. The same answer whether it never existed or belongs to somebody else. */
export function notFound(resource: string): Fault {
  return new Fault(ErrorReason.NOT_FOUND, {
    message: `There is no such ${resource.replaceAll("_", " ")}.`,
    metadata: { resource },
  });
}
