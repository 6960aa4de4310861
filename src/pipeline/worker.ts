import { Reason, Status } from "#gen/posthorn/v1/notification_pb.ts";
import { Fault } from "#src/errors.ts";
import { isDependencyDown } from "#src/rpc/dependency-errors.ts";
import type { Logger } from "#src/telemetry/logger.ts";
import type { AcceptDeps } from "./accept/accept.ts";
import { runFanout } from "./accept/fanout.ts";
import type { HandleWork } from "./consume.ts";
import { POISON_ATTEMPTS } from "./redelivery.ts";
import { commitDecisions } from "./route/commit.ts";
import { type RouteContext, type RouteDeps, route } from "./route/route.ts";

export type WorkerDeps = {
  route: RouteDeps;
  accept: AcceptDeps;
  /** Counter slots of this process, taken in turn. */
  slots: readonly number[];
  /** A fresh epoch for inboxes that begin: positive, 31 bits. */
  newEpoch(): number;
  log: Logger;
};

/**
 * What a worker does with a message: decide its notifications, or go on with its fan-out.
 *
 * A chunk that fails again and again for reasons of its own is taken apart, so that one notification cannot keep the
 * others from being decided; one that fails alone as well ends as FAILED. While a dependency is away nothing is ended:
 * the chunk waits.
 */
export function worker(deps: WorkerDeps): HandleWork {
  let turn = 0;
  return async (work, delivery) => {
    const context: RouteContext = {
      slot: deps.slots[turn++ % deps.slots.length] ?? 0,
      epoch: deps.newEpoch(),
      traces: delivery.traces,
    };
    if ("fanoutId" in work) return runFanout(deps.accept, work.tenantId, work.fanoutId, context);
    if (delivery.attempt <= POISON_ATTEMPTS) return route(deps.route, work.tenantId, work.ids, context);
    for (const id of work.ids) {
      delivery.signal.throwIfAborted();
      try {
        await route(deps.route, work.tenantId, [id], context);
      } catch (error) {
        if (passes(error)) throw error;
        deps.log.error(
          { err: error, tenant: work.tenantId, notification: id, status: "FAILED" },
          "a notification cannot be decided; it ends as FAILED",
        );
        await endFailed(deps, work.tenantId, id, context);
      }
      delivery.working();
    }
  };
}

/** Whether it is the fault of the moment and not of the notification. */
function passes(error: unknown): boolean {
  return isDependencyDown(error) || (error instanceof Fault && error.retryAfterMs !== undefined);
}

async function endFailed(deps: WorkerDeps, tenantId: string, id: string, context: RouteContext): Promise<void> {
  const now = deps.route.clock();
  const failed = { id, status: Status.FAILED, reason: Reason.PROCESSING_FAILED, dueAt: undefined, detail: undefined };
  await deps.route.store.tenant(tenantId, (tx) => commitDecisions(tx, tenantId, [failed], { now, ...context }));
}
