import { LRUCache } from "lru-cache";
import { ErrorReason } from "#gen/posthorn/v1/error_pb.ts";
import { Fault } from "#src/errors.ts";
import type { Principal } from "#src/rpc/call.ts";
import { take } from "./api-limits-gcra.ts";

/** Calls a second, and how many at once after a pause. A rate of 0: no limit. */
export type ApiRate = { readonly requestsPerSecond: number; readonly burst: number };
export type ApiLimitsConfig = { readonly perKey: ApiRate; readonly perTenant: ApiRate };

/** Counts one call against its caller; a Fault (API_LIMIT_EXCEEDED) when it is one too many. */
export type ApiLimits = (principal: Principal) => Fault | undefined;

/** Callers remembered. One that is forgotten begins with a full burst again, so it only has to be more than are active. */
const MAX_CALLERS = 100_000;

/**
 * API limits: per credential (an API key, or a user over all their tokens) and per tenant. A call is one call whatever
 * it carries: SendBatch of 5,000 counts once, because what it creates is limited as notifications; a stream counts when
 * it opens. The operator is not limited.
 *
 * Each process counts by itself, so that no call waits for Redis: the limit of a deployment is this times its processes.
 *
 * @param now milliseconds that only rise, such as `performance.now`: a clock that is set back must not refuse anybody
 */
export function createApiLimits(
  config: ApiLimitsConfig,
  now: () => number,
  refused: (whose: "key" | "user" | "tenant") => void = () => undefined,
): ApiLimits {
  const callers = new LRUCache<string, number>({ max: MAX_CALLERS });
  const tenants = new LRUCache<string, number>({ max: MAX_CALLERS });
  return (principal) => {
    if (principal.kind === "operator") return undefined;
    const at = now();
    const caller = principal.kind === "key" ? principal.keyId : `${principal.tenantId}/${principal.userId}`;
    const one = take(config.perKey, callers.get(caller), at);
    if (!one.allowed) {
      refused(principal.kind);
      return exceeded(principal.kind === "key" ? `key:${caller}` : `user:${principal.userId}`, one);
    }
    const all = take(config.perTenant, tenants.get(principal.tenantId), at);
    if (!all.allowed) {
      refused("tenant");
      return exceeded(`tenant:${principal.tenantId}`, all);
    }
    if (one.state !== undefined) callers.set(caller, one.state);
    if (all.state !== undefined) tenants.set(principal.tenantId, all.state);
    return undefined;
  };
}

function exceeded(subject: string, refused: { limit: number; windowMs: number; retryAfterMs: number }): Fault {
  const window = `${refused.windowMs / 1000}s`;
  return new Fault(ErrorReason.API_LIMIT_EXCEEDED, {
    retryAfterMs: refused.retryAfterMs,
    metadata: { limit: String(refused.limit), usage: String(refused.limit), window },
    quota: [{ subject, description: `${refused.limit} calls per ${window}` }],
  });
}
