import { Gate as Name } from "#gen/posthorn/v1/explain_pb.ts";
import { Channel, type Reason } from "#gen/posthorn/v1/notification_pb.ts";
import type { BatchPlan } from "#src/batches/plan.ts";
import { channelBits } from "#src/notifications/channel-bits.ts";
import { batch } from "./batch.ts";
import { channelOff } from "./channel-off.ts";
import { channelUnavailable } from "./channel-unavailable.ts";
import { digest } from "./digest.ts";
import { doNotDisturb } from "./do-not-disturb.ts";
import { expired } from "./expired.ts";
import { filtered } from "./filtered.ts";
import type { ChannelGate, Facts, Gate, Objection, Suppression } from "./gate.ts";
import { belowMinimumPriority } from "./minimum-priority.ts";
import { optedOut } from "./opted-out.ts";
import { optimalTiming } from "./optimal-timing.ts";
import { quietHours } from "./quiet-hours.ts";
import { scheduled } from "./scheduled.ts";
import { switchedOff } from "./switched-off.ts";
import { typeDeleted } from "./type-deleted.ts";
import { weekend } from "./weekend.ts";

export type { Facts } from "./gate.ts";

/** What the gates say about one channel. */
export type ChannelVerdict =
  | { channel: Channel; kind: "deliver" }
  | { channel: Channel; kind: "hold"; reason: Reason; until: Date }
  | { channel: Channel; kind: "batch"; reason: Reason; plan: BatchPlan }
  | ({ channel: Channel } & Suppression);

type Step = { name: Name } & ({ about: "notification"; gate: Gate } | { about: "channel"; gate: ChannelGate });

/**
 * The gates in their order: what is final before what passes, so that nothing waits for the end of quiet hours only to
 * be suppressed; the time that users have chosen for their digest before the clock and what was learnt of them, or what is
 * held over that time would miss its digest and wait for the next; the clock before what else collects, so that a batch
 * is short and its window begins when it may be delivered; and what costs least first. The first that objects decides.
 * To add a gate, write it in a file of its own and put it into this list, and its name at the same place into that of
 * notifications/explain.ts.
 *
 * Duplicates are kept out when a notification is accepted; what was cancelled is passed over when the chunk is read and
 * again by the commit; limits and the hourly cap are asked after all gates, because asking them counts (cap.ts).
 */
const gates = (available: number): readonly Step[] => [
  { name: Name.EXPIRY, about: "notification", gate: expired },
  { name: Name.TYPE_EXISTS, about: "notification", gate: typeDeleted },
  { name: Name.OPT_OUT, about: "notification", gate: optedOut },
  { name: Name.TYPE_SWITCH, about: "notification", gate: switchedOff },
  { name: Name.CHANNEL_SWITCH, about: "channel", gate: channelOff },
  { name: Name.CHANNEL_AVAILABLE, about: "channel", gate: channelUnavailable(available) },
  { name: Name.MINIMUM_PRIORITY, about: "notification", gate: belowMinimumPriority },
  { name: Name.SUBSCRIPTIONS, about: "notification", gate: filtered },
  { name: Name.SCHEDULE, about: "notification", gate: scheduled },
  { name: Name.DIGEST, about: "channel", gate: digest },
  { name: Name.QUIET_HOURS, about: "notification", gate: quietHours },
  { name: Name.DO_NOT_DISTURB, about: "notification", gate: doNotDisturb },
  { name: Name.WEEKEND, about: "notification", gate: weekend },
  { name: Name.OPTIMAL_TIMING, about: "notification", gate: optimalTiming },
  { name: Name.BATCH, about: "notification", gate: batch },
];

/**
 * Decides about every channel of a notification, in their order, where the inbox and these outside channels can be used.
 * Pure: the same facts and instant give the same verdicts, at any time. Limits are not in it: a "deliver" still has to be reserved (see conclude.ts, which also ends at
 * once what would expire before its hold does).
 */
export function deciding(outside: Iterable<Channel>): (facts: Facts, now: Date) => ChannelVerdict[] {
  const steps = gates(channelBits([Channel.IN_APP, ...outside]));
  return (facts, now) => {
    const { channels } = facts.notification;
    const objections: (Objection | undefined)[] = channels.map(() => undefined);
    for (const { about, gate } of steps) {
      if (about === "channel") {
        channels.forEach((channel, index) => {
          objections[index] ??= gate(facts, channel, now);
        });
      } else {
        const objection = gate(facts, now);
        if (objection !== undefined)
          return channels.map((channel, index) => verdict(channel, objections[index] ?? objection));
      }
    }
    return channels.map((channel, index) => verdict(channel, objections[index]));
  };
}

/** The names of the gates, in their order. */
export const GATE_ORDER: readonly Name[] = gates(0).map(({ name }) => name);

/** The same where there is nothing but the inbox. */
export const decide = deciding([]);

function verdict(channel: Channel, objection: Objection | undefined): ChannelVerdict {
  return objection === undefined ? { channel, kind: "deliver" } : { channel, ...objection };
}
