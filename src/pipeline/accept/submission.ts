import type { SpanContext } from "@opentelemetry/api";
import type { SendRequest } from "#gen/posthorn/v1/send_service_pb.ts";
import type { Draft } from "./prepare.ts";

/** A notification to be. */
export type NewRow = { id: string; userId: string; scheduledAt: Date | undefined; expiresAt: Date | undefined };

/** One Send, ready to be stored. */
export type Submission = {
  draft: Draft;
  /** One per user id, no user twice. */
  rows: NewRow[];
  /** Present when the Send names topics, roles or everyone. */
  fanout: { id: string; request: SendRequest } | undefined;
  idempotency: { key: string; hash: Uint8Array } | undefined;
  actor: string;
  /** Id for the audit entry of a limits bypass. */
  auditId: string;
  /** When it began to wait for its group, by `performance.now()`. */
  submittedAt: number;
  /** The caller's trace, if it is recorded. */
  trace: SpanContext | undefined;
};
