import { create, type DescMessage, type Message, toBinary } from "@bufbuild/protobuf";
import { anyPack, durationFromMs } from "@bufbuild/protobuf/wkt";
import {
  BadRequestSchema,
  ErrorInfoSchema,
  QuotaFailureSchema,
  RetryInfoSchema,
} from "#gen/google/rpc/error_details_pb.ts";
import { StatusSchema } from "#gen/google/rpc/status_pb.ts";
import { ErrorReasonSchema } from "#gen/posthorn/v1/error_pb.ts";
import type { Fault, FieldFault } from "#src/errors.ts";

/** One detail of an error: a message of google.rpc and its schema. */
export type Detail = { readonly desc: DescMessage; readonly value: Message };

/**
 * Details travel in trailers, base64-encoded, and common clients and proxies refuse trailers of 8 KiB in all. What is
 * over is left out, beginning with the last refused fields; ErrorInfo and the message always fit.
 */
const MAX_DETAIL_BYTES = 4096;
const MAX_MESSAGE = 500;
const MAX_FIELDS = 25;

/** What a person reads. Bounded and well-formed: half a surrogate pair makes grpc-js answer INTERNAL instead. */
export function messageOf(fault: Fault): string {
  return bounded(fault.message, MAX_MESSAGE);
}

/** The typed details of a fault, the same on every protocol (AIP-193). */
export function detailsOf(fault: Fault): Detail[] {
  const details: Detail[] = [{ desc: ErrorInfoSchema, value: errorInfo(fault) }];
  if (fault.retryAfterMs !== undefined) {
    const retryDelay = durationFromMs(Math.max(1, Math.ceil(fault.retryAfterMs)));
    details.push({ desc: RetryInfoSchema, value: create(RetryInfoSchema, { retryDelay }) });
  }
  if (fault.quota.length > 0) {
    const violations = fault.quota.slice(0, 5).map(({ subject, description }) => ({
      subject: bounded(subject, 200),
      description: bounded(description, 200),
    }));
    details.push({ desc: QuotaFailureSchema, value: create(QuotaFailureSchema, { violations }) });
  }
  if (fault.fields.length > 0) {
    const used = details.reduce((sum, { desc, value }) => sum + toBinary(desc, value).byteLength, 0);
    details.push({ desc: BadRequestSchema, value: badRequest(fault, MAX_DETAIL_BYTES - used) });
  }
  return details;
}

/** The value of `grpc-status-details-bin`: an encoded google.rpc.Status. */
export function statusBytes(fault: Fault): Uint8Array {
  return toBinary(
    StatusSchema,
    create(StatusSchema, {
      code: fault.code,
      message: messageOf(fault),
      details: detailsOf(fault).map(({ desc, value }) => anyPack(desc, value)),
    }),
  );
}

/** A reason as it is written on the wire: its name without the prefix. */
export function reasonName(fault: Fault): string {
  return ErrorReasonSchema.value[fault.reason]?.name.replace("ERROR_REASON_", "") ?? "INTERNAL";
}

function errorInfo(fault: Fault): Message {
  const metadata = Object.fromEntries(
    Object.entries(fault.metadata)
      .slice(0, 10)
      .map(([key, value]) => [bounded(key, 64), bounded(value, 200)]),
  );
  return create(ErrorInfoSchema, { reason: reasonName(fault), domain: "posthorn", metadata });
}

/** The first refused fields. */
export function fieldsOf(fault: Fault): FieldFault[] {
  return fault.fields.slice(0, MAX_FIELDS).map(({ field, description }) => ({
    field: bounded(field, 200),
    description: bounded(description, 300),
  }));
}

function badRequest(fault: Fault, room: number): Message {
  const fieldViolations = fieldsOf(fault);
  for (;;) {
    const message = create(BadRequestSchema, { fieldViolations });
    if (fieldViolations.length <= 1 || toBinary(BadRequestSchema, message).byteLength <= room) return message;
    fieldViolations.pop();
  }
}

function bounded(text: string, length: number): string {
  return (text.length > length ? `${text.slice(0, length - 1)}…` : text).toWellFormed();
}
