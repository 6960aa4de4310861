export type Taken =
  | { readonly allowed: true; readonly state: number | undefined }
  | { readonly allowed: false; readonly limit: number; readonly windowMs: number; readonly retryAfterMs: number };

/**
 * One call of a token bucket kept as a single number, the generic cell rate algorithm (ITU-T I.371): `state` is the
 * time at which the bucket will be full again. Pure; the caller stores the new state when the call goes ahead.
 *
 * @param rate refills `requestsPerSecond`, holds `burst` (at least 1); 0 a second: no limit
 * @param state from the last call that went ahead; undefined: a full bucket
 * @param nowMs milliseconds on any clock that only rises
 */
export function take(
  rate: { readonly requestsPerSecond: number; readonly burst: number },
  state: number | undefined,
  nowMs: number,
): Taken {
  if (rate.requestsPerSecond <= 0) return { allowed: true, state: undefined };
  const burst = Math.max(1, rate.burst);
  const eachMs = 1000 / rate.requestsPerSecond;
  const windowMs = burst * eachMs;
  const next = Math.max(state ?? nowMs, nowMs) + eachMs;
  const overMs = next - nowMs - windowMs;
  // Sums of fractions: a millionth of a millisecond is not over the limit.
  if (overMs > 1e-6) return { allowed: false, limit: burst, windowMs, retryAfterMs: overMs };
  return { allowed: true, state: next };
}
