import type { Broker } from "#src/broker/broker.ts";
import type { Metrics } from "#src/telemetry/metrics.ts";
import { ingestStream, LANES } from "./flow.ts";

/** Looks at every lane's queue: how many messages there are, and how old the oldest is. One question to NATS each. */
export async function measureQueues(
  broker: Broker,
  metrics: Pick<Metrics, "queueWaiting" | "queueOldestSeconds">,
  now: Date,
): Promise<void> {
  if (!broker.up()) return;
  await Promise.all(
    LANES.map(async ({ name: lane }) => {
      const { state } = await broker.jsm.streams.info(ingestStream(broker.namespace, lane));
      const ageMs = state.messages === 0 ? 0 : now.getTime() - Date.parse(state.first_ts);
      metrics.queueWaiting.set({ stage: "route", lane }, state.messages);
      metrics.queueOldestSeconds.set({ stage: "route", lane }, Math.max(0, ageMs) / 1000);
    }),
  );
}
