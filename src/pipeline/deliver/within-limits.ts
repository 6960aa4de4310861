import { Priority, Reason } from "#gen/posthorn/v1/notification_pb.ts";
import {
  type Asking,
  type ChannelsPerDay,
  dayOf,
  HORIZON_DAYS,
  LIMITED_CHANNELS,
  lowest,
  startOf,
  turnOf,
} from "#src/limits/channel-day.ts";
import type { Answer, ChannelLimits } from "#src/limits/channel-limits.ts";
import { phaseOf } from "#src/limits/phase.ts";
import { type Blocks, closedDays, patternFor } from "#src/preferences/clock-rules.ts";
import type { CompiledPreferences } from "#src/preferences/compile.ts";
import type { RulesVersion } from "#src/preferences/fence.ts";
import { nextAllowed } from "#src/preferences/next-allowed.ts";
import type { Claimed } from "./claim.ts";
import type { Stored } from "./load.ts";
import type { HandedOver } from "./measure.ts";

export type LimitDeps = {
  /** What the server allows of each channel. */
  channelsPerDay: ChannelsPerDay;
  /** Finds hand-overs their places in the days of their recipients. */
  channelLimits: ChannelLimits;
};

/** A hand-over that nothing else stops. */
export type Ready = {
  claimed: Pick<Claimed, "notificationId" | "userId" | "step" | "channel" | "inDoubt">;
  stored: Pick<Stored, "priority" | "bypassLimits" | "senderId" | "expiresAt">;
  preferences: CompiledPreferences;
};

/**
 * What the limits of their channels say about hand-overs of one tenant, in their order; undefined: it goes. All are asked
 * together, and those that have a limit are counted by it.
 */
export async function withinLimits(
  { channelsPerDay, channelLimits }: LimitDeps,
  tenantId: string,
  ready: readonly Ready[],
  now: Date,
): Promise<(HandedOver | undefined)[]> {
  const asking = ready.map((each) => askingFor(each, channelsPerDay, now));
  const answers = (
    await channelLimits(
      tenantId,
      asking.filter((each) => each !== undefined),
    )
  ).values();
  return ready.map((each, index) => {
    const asked = asking[index];
    const answer = asked && answers.next().value;
    return asked && answer && stopBy(each, asked, answer, now);
  });
}

/** Undefined: nobody limits it. Pure. */
export function askingFor(
  { claimed: { notificationId, userId, step, channel, inDoubt }, stored, preferences }: Ready,
  channelsPerDay: ChannelsPerDay,
  now: Date,
): Asking | undefined {
  const name = LIMITED_CHANNELS.get(channel);
  if (name === undefined) return undefined;
  // The recipient's own word is not passed by a sender.
  const limit = lowest(stored.bypassLimits ? 0 : channelsPerDay[name], preferences.channelsPerDay.get(channel));
  if (limit === 0) return undefined;
  const clock = preferences.digest.clock();
  return {
    tag: `${notificationId}:${step}`,
    ...{ userId, channel, limit },
    // An escalation insists: who waits for an answer does not wait for tomorrow. And what may have come has had its place.
    exempt: stored.priority === Priority.CRITICAL || step > 0 || inDoubt,
    today: dayOf(clock, now.getTime()),
    closedDays: closedDays(blocksFor(stored, preferences)),
    lastDay: stored.expiresAt === null ? undefined : dayOf(clock, stored.expiresAt.getTime()),
  };
}

/** What an answer makes of it: it goes, waits for its turn, or would wait until it expires. Pure. */
export function stopBy(
  { stored, preferences }: Ready,
  { userId, limit, today }: Asking,
  answer: Answer,
  now: Date,
): HandedOver | undefined {
  const { expiresAt } = stored;
  const rules = preferences.version;
  if ("askAfterMs" in answer)
    return heldOrExpired(
      { reason: Reason.LIMITER_UNAVAILABLE, until: new Date(now.getTime() + answer.askAfterMs), rules },
      expiresAt,
    );
  if (answer.day === today) return undefined;
  const clock = preferences.digest.clock();
  const blocks = blocksFor(stored, preferences);
  const allowed = (fromMs: number) => nextAllowed(blocks, clock, fromMs) ?? fromMs;
  const place = { ...answer, day: Math.min(answer.day, today + HORIZON_DAYS) };
  const until = new Date(turnOf(place, { limit, phase: phaseOf(userId), clock, allowed }));
  const stood = { usage: answer.used, limit, resetAt: new Date(startOf(clock, today + 1)) };
  return heldOrExpired({ reason: Reason.CHANNEL_DAY_LIMIT, until, stood, rules }, expiresAt);
}

const NONE: Blocks = [];

/** When the recipient's clock rules hold it back. */
function blocksFor({ priority, senderId }: Ready["stored"], { clock }: CompiledPreferences): Blocks {
  if (clock === undefined) return NONE;
  return patternFor(clock, { critical: priority === Priority.CRITICAL, senderId: senderId ?? undefined }).all;
}

/** Why a hand-over waits, by which rules, and how the limit stood that holds it. */
export type Hold = {
  reason: Reason;
  until: Date;
  rules?: RulesVersion | undefined;
  stood?: { usage: number; limit: number; resetAt: Date };
};

/** It waits; or it is told now, not after a wait that is in vain. */
export function heldOrExpired(hold: Hold, expiresAt: Date | null): HandedOver {
  if (expiresAt !== null && expiresAt <= hold.until)
    return { kind: "expired", reason: hold.reason, outcome: "expired" };
  return { kind: "held", hold, outcome: "held" };
}
