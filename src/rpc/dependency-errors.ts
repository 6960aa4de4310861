/** Recognises errors that mean "Postgres, NATS or Redis does not answer", or cannot yet, by shape: no driver is imported. */

/** Sockets (libuv), postgres.js, and the codes of the NATS client. */
const CONNECTION_CODES = new Set([
  "ECONNREFUSED",
  "ECONNRESET",
  "ECONNABORTED",
  "EPIPE",
  "ETIMEDOUT",
  "ENOTFOUND",
  "EAI_AGAIN",
  "EHOSTUNREACH",
  "ENETUNREACH",
  "CONNECTION_CLOSED",
  "CONNECTION_ENDED",
  "CONNECTION_DESTROYED",
  "CONNECT_TIMEOUT",
  "CONNECTION_DRAINING",
  "CONNECTION_REFUSED",
  "CONNECTION_TIMEOUT",
  "DISCONNECT",
  "TIMEOUT",
  "503",
]);

/**
 * SQLSTATE of a server that cannot serve now: connection exceptions (08), insufficient resources (53), shutting down or
 * starting (57P0x), a statement or lock time-out (57014, 55P03), read-only after a failover (25006), and transactions
 * broken off to resolve a conflict (40001, 40P01), which left nothing behind.
 */
const SQLSTATE = /^(08...|53...|57P0[1-5]|57014|55P03|25006|40001|40P01)$/;

/**
 * A row for a month that has no partition (a check_violation, told from others by where Postgres raises it, because its
 * message is translated): the scheduler makes what a clock that was set needs, so it is no fault of the row's.
 */
const CHECK_VIOLATION = "23514";
const NO_PARTITION = "ExecFindPartition";

const REDIS_REPLY = /^(LOADING|READONLY|CLUSTERDOWN|MASTERDOWN|TRYAGAIN|BUSY) /;
const REDIS_MESSAGE = /^(Connection is closed|Command timed out|Stream isn't writeable|Connection lost)/;

/** Whether the error, or what caused it, is a dependency out of reach. Total. */
export function isDependencyDown(error: unknown, depth = 0): boolean {
  if (!(error instanceof Error) || depth > 5) return false;
  // Of the store: no transaction could be begun, whatever the reason, a Postgres that lets nobody in among them.
  if (error.name === "Unreached") return true;
  const code: unknown = Reflect.get(error, "code");
  if (typeof code === "string" && (CONNECTION_CODES.has(code) || ("severity" in error && SQLSTATE.test(code))))
    return true;
  if (code === CHECK_VIOLATION && Reflect.get(error, "routine") === NO_PARTITION) return true;
  if (error.name === "MaxRetriesPerRequestError" || REDIS_MESSAGE.test(error.message)) return true;
  if (error.name === "ReplyError" && REDIS_REPLY.test(error.message)) return true;
  if (error instanceof AggregateError && error.errors.some((each) => isDependencyDown(each, depth + 1))) return true;
  return isDependencyDown(error.cause, depth + 1);
}
