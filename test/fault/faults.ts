import { clockSteps } from "./faults/clock-steps.ts";
import { diskFull } from "./faults/disk-full.ts";
import { drained } from "./faults/drained.ts";
import { jetstreamDeleted } from "./faults/jetstream-deleted.ts";
import { killed } from "./faults/killed.ts";
import { natsAway } from "./faults/nats-away.ts";
import { natsSilent } from "./faults/nats-silent.ts";
import { paused } from "./faults/paused.ts";
import { postgresAway } from "./faults/postgres-away.ts";
import { redisAway } from "./faults/redis-away.ts";
import { restarted } from "./faults/restarted.ts";
import type { FaultTest } from "./lab/lab.ts";

/**
 * Every fault there is a test for. A new one: a file in faults/ and its line here.
 *
 * Each fails without what guards against it: `killed` without the reconciler; `paused` without the condition in
 * commitDecisions that a row is still ACCEPTED as it was read, without the heads' row lock, without the unique keys of
 * idempotency and dedup, and without the locks of a batch that closes, the locks of an escalation that is due, the
 * compare of a hand-over's claim in the note of it, and the note that what is at most once is given; `clock-steps` with
 * windows of dedup by the database's clock, and with the order of ids to say what a collapse key ends; `restarted`
 * without the end of the hub's ticker, and of the connections to Redis and NATS; `drained` without the hub's drain;
 * `nats-away` on a busy machine without consumers that begin anew after an interruption; `nats-silent` without the broker's
 * short ping interval; `postgres-away` without the gate, when Postgres is paused, with its refusals taken for faults of our
 * own, when it says no, and with a readiness that is content with any answer, when it is read-only; `redis-away` without
 * the time-out of commands, and without sending a script again that Redis has forgotten; `jetstream-deleted` without the
 * reconciler; `disk-full` without it, and without a full disk (53…) among what callers may repeat.
 * Those of test/store/outage.test.ts fail without the gate and its sockets, or without that readiness.
 */
export const faults: readonly FaultTest[] = [
  killed,
  paused,
  clockSteps,
  restarted,
  drained,
  postgresAway,
  natsAway,
  natsSilent,
  redisAway,
  jetstreamDeleted,
  diskFull,
];
