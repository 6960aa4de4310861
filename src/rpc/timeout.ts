import type { IncomingHttpHeaders } from "node:http";

const MS: Readonly<Record<string, number>> = { H: 3_600_000, M: 60_000, S: 1_000, m: 1, u: 0.001, n: 0.000_001 };

/**
 * How long the caller waits, by `grpc-timeout` (gRPC over HTTP/2: up to eight digits and a unit) or `connect-timeout-ms`
 * (Connect: up to ten digits), at most `maxMs`. Undefined: it does not say.
 */
export function callerTimeout(headers: IncomingHttpHeaders, maxMs: number): number | undefined | "invalid" {
  const grpc = headers["grpc-timeout"];
  const connect = headers["connect-timeout-ms"];
  if (typeof grpc === "string") {
    const [, digits, unit] = /^(\d{1,8})([HMSmun])$/.exec(grpc) ?? [];
    return digits === undefined || unit === undefined ? "invalid" : Math.min(Number(digits) * (MS[unit] ?? 0), maxMs);
  }
  if (typeof connect === "string") return /^\d{1,10}$/.test(connect) ? Math.min(Number(connect), maxMs) : "invalid";
  return undefined;
}
