/** Names of span attributes: OpenTelemetry's semantic conventions 1.45 where they speak, `posthorn.` where not. */

import { type Attributes, SpanKind } from "@opentelemetry/api";
import {
  ATTR_ERROR_TYPE,
  ATTR_NETWORK_PROTOCOL_NAME,
  ATTR_NETWORK_PROTOCOL_VERSION,
  ATTR_RPC_METHOD,
  ATTR_RPC_STATUS_CODE,
  ATTR_RPC_SYSTEM_NAME,
} from "@opentelemetry/semantic-conventions";

export const ATTR = {
  errorType: ATTR_ERROR_TYPE,
  rpcSystem: ATTR_RPC_SYSTEM_NAME,
  rpcMethod: ATTR_RPC_METHOD,
  rpcStatusCode: ATTR_RPC_STATUS_CODE,
  protocolName: ATTR_NETWORK_PROTOCOL_NAME,
  protocolVersion: ATTR_NETWORK_PROTOCOL_VERSION,
  /** How a call came in over HTTP: "grpc", "grpc-http", "grpc-web" or "connect". */
  transport: "posthorn.transport",
  // The messaging conventions are still in development, and such names are to be copied, not imported.
  messagingSystem: "messaging.system.name",
  messagingOperation: "messaging.operation.name",
  messagingOperationType: "messaging.operation.type",
  messagingDestination: "messaging.destination.name",
  messagingDestinationTemplate: "messaging.destination.template",
  messagingPartition: "messaging.destination.partition.id",
  messagingConsumerGroup: "messaging.consumer.group.name",
  messagingMessageId: "messaging.message.id",
  /** Why a call was refused: a value of ErrorReason. */
  reason: "posthorn.reason",
  tenant: "posthorn.tenant.id",
  notification: "posthorn.notification.id",
  /** Notifications in one chunk, whoever sent them. */
  items: "posthorn.notification.count",
  /** Batches and digests that are closed together. */
  batches: "posthorn.batch.count",
  /** Sends in one commit. */
  sends: "posthorn.send.count",
  /** How often the chunk has been given out. */
  attempt: "posthorn.queue.attempt",
  /** Why notifications are put on the queue again: "due" or "lost". Their first trace is not kept. */
  requeued: "posthorn.requeued",
  sequence: "posthorn.inbox.sequence",
  /** Streams of this process that the event was given to. */
  streams: "posthorn.streams",
  /** The number of an escalation's step; 0: of the decision. */
  step: "posthorn.escalation.step",
  /** How often a hand-over has been tried, this time included. */
  handOverAttempt: "posthorn.hand_over.attempt",
  /** What came of a hand-over: the label `outcome` of posthorn_hand_overs_total. */
  outcome: "posthorn.outcome",
} as const;

export type SpanShape = { readonly name: string; readonly kind: SpanKind; readonly attributes: Attributes };

/** The commit of a group of Sends. */
export function acceptCommit(tenantId: string, sends: number): SpanShape {
  return {
    name: "accept commit",
    kind: SpanKind.INTERNAL,
    attributes: { [ATTR.tenant]: tenantId, [ATTR.sends]: sends },
  };
}

/** What puts notifications on the queue again. */
export function requeueing(why: "due" | "lost"): SpanShape {
  return { name: `requeue ${why}`, kind: SpanKind.INTERNAL, attributes: { [ATTR.requeued]: why } };
}

/** Work of the scheduler on some of a tenant's due rows: "escalate", "close batches", "send occurrence", "reconsider". */
export function scheduled(name: string, tenantId: string, more: Attributes = {}): SpanShape {
  return { name, kind: SpanKind.INTERNAL, attributes: { [ATTR.tenant]: tenantId, ...more } };
}

/** A message given to an outside channel. No context goes with it, hence CLIENT and not PRODUCER. */
export function handingOver(channel: string, messageId: string, more: Attributes): SpanShape {
  return {
    name: `send ${channel}`,
    kind: SpanKind.CLIENT,
    attributes: {
      [ATTR.messagingSystem]: channel,
      [ATTR.messagingOperation]: "send",
      [ATTR.messagingOperationType]: "send",
      [ATTR.messagingDestination]: channel,
      [ATTR.messagingMessageId]: messageId,
      ...more,
    },
  };
}

/** A message given to NATS. `template` is the subject without what varies: `ingest.high`. */
export function publishing(template: string, subject: string, partition: number): SpanShape {
  return {
    name: `publish ${template}`,
    kind: SpanKind.PRODUCER,
    attributes: messaging("publish", "send", template, {
      [ATTR.messagingDestination]: subject,
      [ATTR.messagingPartition]: String(partition),
    }),
  };
}

/** A message from NATS at work. */
export function processing(template: string, more: Attributes): SpanShape {
  return {
    name: `process ${template}`,
    kind: SpanKind.CONSUMER,
    attributes: messaging("process", "process", template, more),
  };
}

function messaging(operation: string, type: string, template: string, more: Attributes): Attributes {
  return {
    [ATTR.messagingSystem]: "nats",
    [ATTR.messagingOperation]: operation,
    [ATTR.messagingOperationType]: type,
    [ATTR.messagingDestinationTemplate]: template,
    ...more,
  };
}
