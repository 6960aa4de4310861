import { randomUUID } from "node:crypto";
import type { DescMethod } from "@bufbuild/protobuf";
import { Scope } from "#gen/posthorn/v1/admin_service_pb.ts";
import { StreamService } from "#gen/posthorn/v1/stream_service_pb.ts";
import type { Call, Principal } from "#src/rpc/call.ts";
import { createLogger } from "#src/telemetry/logger.ts";

/** Every scope there is. */
export const ALL_SCOPES: ReadonlySet<Scope> = new Set(
  Object.values(Scope).filter((scope) => scope !== Scope.UNSPECIFIED),
);

export type FakeCall = {
  tenantId: string;
  /** Default: an API key with all scopes. */
  principal?: Principal;
  method?: DescMethod;
  signal?: AbortSignal;
  requestId?: string;
};

const log = createLogger({ serviceName: "test", logLevel: "silent", logFormat: "json" });

/** A call as handlers get it from the interceptors. */
export function fakeCall({ tenantId, principal = keyOf(tenantId), ...rest }: FakeCall): Call {
  return {
    method: rest.method ?? StreamService.method.subscribe,
    principal,
    tenantId,
    actor: actorOf(principal),
    signal: rest.signal ?? new AbortController().signal,
    requestId: rest.requestId ?? randomUUID(),
    log,
    answerWith: () => undefined,
  };
}

export function keyOf(tenantId: string, scopes: ReadonlySet<Scope> = ALL_SCOPES): Principal & { kind: "key" } {
  return { kind: "key", tenantId, keyId: randomUUID(), scopes, expiresAt: undefined };
}

export function userOf(tenantId: string, userId: string): Principal & { kind: "user" } {
  const now = Date.now();
  return { kind: "user", tenantId, userId, issuedAt: new Date(now), expiresAt: new Date(now + 3_600_000) };
}

export const OPERATOR: Principal = { kind: "operator", tenantId: undefined };

function actorOf(principal: Principal): string {
  switch (principal.kind) {
    case "operator":
      return "operator";
    case "key":
      return `key:${principal.keyId}`;
    case "user":
      return `user:${principal.userId}`;
    default:
      return principal satisfies never;
  }
}
