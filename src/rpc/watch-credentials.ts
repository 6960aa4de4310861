import { ErrorReason } from "#gen/posthorn/v1/error_pb.ts";
import type { Clock } from "#src/clock.ts";
import { Fault } from "#src/errors.ts";
import type { Principal } from "./call.ts";
import type { Exchange } from "./exchange.ts";

/**
 * Whether a credential that was good still is: not revoked since. Answers at once when it knows; rejects when it cannot be
 * found out.
 */
export type StillValid = (principal: Principal) => boolean | Promise<boolean>;

/** Every stream is looked at this often: with the second a revocation may take, there is room for its news to travel. */
const ROUND_MS = 500;
/** Streams are looked at in this many groups, one after the other, so that ten thousand do not all cost at once. */
const GROUPS = 10;

/**
 * Ends open streams whose credential was revoked (CREDENTIAL_INVALID) or has expired (CREDENTIAL_EXPIRED), within half a
 * second. While it cannot be found out whether a credential was revoked, streams go on.
 */
export function watchCredentials(stillValid: StillValid, clock: Clock): Disposable & { add(exchange: Exchange): void } {
  const groups = Array.from({ length: GROUPS }, () => new Set<Exchange>());
  const asked = new WeakSet<Exchange>();
  let turn = 0;
  let next = 0;

  const look = (exchange: Exchange, now: number) => {
    const { principal } = exchange;
    const expiresAt = principal.kind === "operator" ? undefined : principal.expiresAt;
    if (expiresAt !== undefined && expiresAt.getTime() <= now)
      return exchange.abort(new Fault(ErrorReason.CREDENTIAL_EXPIRED));
    if (asked.has(exchange)) return;
    const answer = stillValid(principal);
    if (answer === true) return;
    asked.add(exchange);
    Promise.resolve(answer)
      .then(
        (good) => good || exchange.abort(new Fault(ErrorReason.CREDENTIAL_INVALID)),
        (err) => exchange.log.debug({ err }, "could not check the credential of a stream"),
      )
      .finally(() => asked.delete(exchange));
  };

  const timer = setInterval(() => {
    turn = (turn + 1) % GROUPS;
    const group = groups[turn] ?? new Set();
    const now = clock().getTime();
    for (const exchange of group) {
      if (exchange.ended) group.delete(exchange);
      else look(exchange, now);
    }
  }, ROUND_MS / GROUPS);
  timer.unref();

  return {
    add(exchange) {
      next = (next + 1) % GROUPS;
      groups[next]?.add(exchange);
    },
    [Symbol.dispose]: () => clearInterval(timer),
  };
}
