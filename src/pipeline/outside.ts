import type { Channels } from "#src/channels/channel.ts";
import type { Clock } from "#src/clock.ts";
import type { Store } from "#src/store/store.ts";
import type { Live } from "#src/stream/live.ts";
import type { Logger } from "#src/telemetry/logger.ts";
import type { Metrics } from "#src/telemetry/metrics.ts";
import type { DeliverDeps } from "./deliver/deliver.ts";
import type { EscalateDeps } from "./escalate/escalate.ts";
import { announceDelivered, announceGone, announceHeld, announceLost } from "./route/announce.ts";
import { askingChannel } from "./route/ask-channel.ts";
import type { ChannelVerdict, Facts } from "./route/gates/decide.ts";

/** What the two stages that lead outside need: taking the steps of escalations, and handing channels what is theirs. */
export function outsideWork(deps: {
  store: Store;
  clock: Clock;
  live: Live;
  log: Logger;
  metrics: Metrics;
  channels: Channels;
  slot: number;
  channelsPerDay: DeliverDeps["channelsPerDay"];
  channelLimits: DeliverDeps["channelLimits"];
  loadPreferences: EscalateDeps["loadPreferences"];
  reloadPreferences: EscalateDeps["reloadPreferences"];
  decide(facts: Facts, now: Date): ChannelVerdict[];
}): { escalate: EscalateDeps; deliver: DeliverDeps } {
  const { store, clock, live, log, metrics, channels, slot, loadPreferences, reloadPreferences } = deps;
  const { channelsPerDay, channelLimits } = deps;
  const ended: EscalateDeps["ended"] = (tenantId, lost, at) => announceLost(live, tenantId, lost, at);
  const askChannel = askingChannel(deps.decide);
  return {
    escalate: { store, slot, log, metrics, loadPreferences, reloadPreferences, askChannel, ended },
    deliver: {
      ...{ store, clock, slot, log, metrics, channels, loadPreferences, reloadPreferences, askChannel, ended },
      ...{ channelsPerDay, channelLimits },
      held: (tenantId, held, at) => announceHeld(live, tenantId, held, at),
      gone: (tenantId, gone, at) => announceGone(live, tenantId, gone, at),
      delivered: (tenantId, delivered, at) => announceDelivered(live, tenantId, delivered, at),
    },
  };
}
