import { create } from "@bufbuild/protobuf";
import { timestampFromDate } from "@bufbuild/protobuf/wkt";
import { type ExplainedEntry, ExplainedEntrySchema } from "#gen/posthorn/v1/explain_pb.ts";
import { type Channel, Reason, Status } from "#gen/posthorn/v1/notification_pb.ts";
import type { PreviewedHandOver } from "#gen/posthorn/v1/send_service_pb.ts";
import type { ChannelsPerDay } from "#src/limits/channel-day.ts";
import type { lookingAtChannelLimits } from "#src/limits/channel-limits.ts";
import { toTimelineEntry } from "#src/notifications/notification.ts";
import type { CompiledPreferences } from "#src/preferences/compile.ts";
import type { HandedOver } from "./deliver/measure.ts";
import { detailOf, reasonOf } from "./deliver/told.ts";
import { askingFor, stopBy } from "./deliver/within-limits.ts";
import { handOversOf } from "./outlook.ts";
import type { Conclusion } from "./route/conclusion.ts";
import type { Waiting } from "./route/load.ts";

export type HeldBackDeps = {
  /** What the limits of channels would say; they count nothing. */
  lookAtChannels: ReturnType<typeof lookingAtChannelLimits>;
  /** What the server allows of each. */
  channelsPerDay: ChannelsPerDay;
};

/** `ended`: why no channel takes it any more, if none does. `limitsKnown`: no limit was asked of which nobody knows the counts. */
export type HeldBack = {
  entries: ExplainedEntry[];
  handOvers: PreviewedHandOver[];
  ended: Reason | undefined;
  limitsKnown: boolean;
};

type Stopped = { channel: Channel; stop: HandedOver | undefined; known: boolean };

/** What the limits of its channels would say at once of the hand-overs of what is decided, and when these would be given it. */
export async function heldBack(
  deps: HeldBackDeps,
  tenantId: string,
  { row, own }: { row: Waiting; own: CompiledPreferences },
  conclusion: Conclusion,
  now: Date,
): Promise<HeldBack> {
  const { handOver = [], status, escalation } = conclusion;
  const asked = await Promise.all(handOver.map((channel) => stopFor(deps, tenantId, { row, own }, channel, now)));
  const entries = asked.flatMap(({ channel, stop }) => (stop === undefined ? [] : [entryOf(channel, stop, now)]));
  const expired = asked.flatMap(({ stop }) => (stop?.kind === "expired" ? [reasonOf(stop)] : []));
  // Its escalation goes on without them.
  const isLost = status === Status.PROCESSING && escalation === undefined && expired.length === handOver.length;
  return {
    entries,
    handOvers: handOversOf(conclusion, now).flatMap((each, index) => atItsTurn(each, asked[index]?.stop)),
    ended: isLost ? expired[0] : undefined,
    limitsKnown: asked.every(({ known }) => known),
  };
}

async function stopFor(
  { lookAtChannels, channelsPerDay }: HeldBackDeps,
  tenantId: string,
  { row, own }: { row: Waiting; own: CompiledPreferences },
  channel: Channel,
  now: Date,
): Promise<Stopped> {
  const claimed = { notificationId: row.id, userId: row.userId, step: 0, channel, inDoubt: false };
  const ready = { claimed, stored: row, preferences: own };
  const asking = askingFor(ready, channelsPerDay, now);
  if (asking === undefined) return { channel, stop: undefined, known: true };
  const { answer, known } = await lookAtChannels(tenantId, asking);
  return { channel, stop: stopBy(ready, asking, answer, now), known };
}

/** As it would be read from the row that is written when it is held, or not handed over. */
function entryOf(channel: Channel, stop: HandedOver, at: Date): ExplainedEntry {
  const claimed = { step: 0, channel };
  const detail = detailOf({ ...stop, claimed });
  const entry = toTimelineEntry({ at, status: 0, channel, reason: reasonOf(stop), actor: null, detail });
  return create(ExplainedEntrySchema, { entry });
}

/** None of what is not handed over, or of which nobody knows when. */
function atItsTurn(handOver: PreviewedHandOver, stop: HandedOver | undefined): PreviewedHandOver[] {
  if (stop === undefined) return [handOver];
  if (stop.kind !== "held" || stop.hold.reason === Reason.LIMITER_UNAVAILABLE) return [];
  return [{ ...handOver, time: timestampFromDate(stop.hold.until) }];
}
