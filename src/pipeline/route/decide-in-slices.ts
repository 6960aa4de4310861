import { breathe } from "#src/breathe.ts";
import type { Metrics } from "#src/telemetry/metrics.ts";
import type { ChannelVerdict, Facts } from "./gates/decide.ts";

/**
 * Decides with breath in between, because filters are the users' own: each takes up to a few milliseconds to get ready, and
 * so do those of one notification together to be asked.
 */
export async function decideInSlices(
  deps: { decide(facts: Facts, now: Date): ChannelVerdict[]; metrics: Pick<Metrics, "filterFailures"> },
  facts: readonly Facts[],
  now: Date,
): Promise<ChannelVerdict[][]> {
  const verdicts: ChannelVerdict[][] = [];
  for (const each of facts) {
    const { notification, preferences } = each;
    const { type, category, tags = [] } = notification;
    for (const filter of preferences.wishes?.groups({ type, category, tags }).flat() ?? []) {
      await breathe();
      preferences.wishes?.prepare(filter);
    }
    await breathe();
    const channels = deps.decide(each, now);
    if (channels.some((verdict) => verdict.kind === "suppress" && verdict.filterFailed))
      deps.metrics.filterFailures.inc();
    verdicts.push(channels);
  }
  return verdicts;
}
