import type { SpanContext } from "@opentelemetry/api";
import { openChains, queueHandOvers } from "#src/escalation/queries.ts";
import { beginning } from "#src/escalation/state.ts";
import type { Tx } from "#src/store/store.ts";
import { format } from "#src/telemetry/message-traces.ts";
import type { Conclusion } from "./conclusion.ts";
import type { Known } from "./decide-chunk.ts";
import type { Waiting } from "./load.ts";

/**
 * Stores what is to follow a decision: hand-overs to outside channels, and escalations. In the transaction that commits
 * it; a chunk without any has no statement here. `traces`: of those whose trace goes on with them.
 */
export async function handOver(
  tx: Tx,
  tenantId: string,
  waiting: readonly Pick<Waiting, "id" | "userId" | "priority" | "type">[],
  conclusions: readonly Conclusion[],
  decided: ReadonlySet<string>,
  { now, traces, types }: { now: Date; traces: ReadonlyMap<string, SpanContext> | undefined; types: Known["types"] },
): Promise<void> {
  const following = conclusions.flatMap(({ id, handOver, escalation }, index) => {
    const row = waiting[index];
    if (row === undefined || (handOver ?? escalation) === undefined || !decided.has(id)) return [];
    const { userId, priority, type } = row;
    return [{ id, userId, priority, atMostOnce: types.get(type)?.rules.atMostOnce === true, handOver, escalation }];
  });
  if (following.length === 0) return;
  const traceOf = (id: string) => {
    const trace = traces?.get(id);
    return trace && format(trace);
  };
  const messages = following.flatMap(({ id: notificationId, handOver = [], userId, priority, atMostOnce }) =>
    handOver.map((channel) => ({
      ...{ notificationId, userId, priority, step: 0, channel, atMostOnce },
      trace: traceOf(notificationId),
    })),
  );
  const chains = following.flatMap(({ id, userId, escalation }) => {
    const chain = escalation && beginning(escalation.steps, escalation.confirmationRequired, now);
    return chain === undefined ? [] : [{ notificationId: id, userId, chain, trace: traceOf(id) }];
  });
  const asking = following.flatMap(({ id, escalation }) => (escalation?.confirmationRequired ? [id] : []));
  await queueHandOvers(tx, tenantId, messages, now);
  await openChains(tx, tenantId, chains);
  if (asking.length > 0) {
    const [first] = asking;
    await tx`update notifications set confirmation_required = true
      where tenant_id = ${tenantId} and id = any(${asking}::uuid[]) and id between ${first ?? ""} and ${asking.at(-1) ?? ""}`;
  }
}
