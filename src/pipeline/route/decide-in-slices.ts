import { readyFilters } from "#src/subscriptions/rules.ts";
import type { Metrics } from "#src/telemetry/metrics.ts";
import type { ChannelVerdict, Facts } from "./gates/decide.ts";

export type DecideDeps = {
  decide(facts: Facts, now: Date): ChannelVerdict[];
  metrics: Pick<Metrics, "filterFailures">;
};

/**
 * Decides with breath in between, because filters are the users' own: each takes up to a few milliseconds to get ready, and
 * so do those of one notification together to be asked.
 */
export async function decideInSlices(
  deps: DecideDeps,
  facts: readonly Facts[],
  now: Date,
): Promise<ChannelVerdict[][]> {
  const verdicts: ChannelVerdict[][] = [];
  for (const each of facts) {
    await readyFilters(each.preferences.wishes, each.notification);
    verdicts.push(decideCounting(deps, each, now));
  }
  return verdicts;
}

/** Decides, and counts it if a filter failed. */
export function decideCounting({ decide, metrics }: DecideDeps, facts: Facts, now: Date): ChannelVerdict[] {
  const channels = decide(facts, now);
  if (channels.some((verdict) => verdict.kind === "suppress" && verdict.filterFailed)) metrics.filterFailures.inc();
  return channels;
}
