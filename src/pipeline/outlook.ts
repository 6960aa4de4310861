import { create } from "@bufbuild/protobuf";
import { timestampFromDate } from "@bufbuild/protobuf/wkt";
import { BatchKind, BatchSchema } from "#gen/posthorn/v1/batch_service_pb.ts";
import { type ExplainedEntry, ExplainedEntrySchema } from "#gen/posthorn/v1/explain_pb.ts";
import { type Channel, type Priority, TimelineEntrySchema, VerdictKind } from "#gen/posthorn/v1/notification_pb.ts";
import {
  type PreviewedBatch,
  PreviewedBatchSchema,
  type PreviewedHandOver,
  PreviewedHandOverSchema,
} from "#gen/posthorn/v1/send_service_pb.ts";
import { DIGEST } from "#src/batches/join.ts";
import type { JoinedByOne } from "#src/batches/joining.ts";
import { beginning, ChainState, type Command } from "#src/escalation/state.ts";
import { toldOf } from "#src/escalation/told.ts";
import { channelsFor } from "#src/notifications/channel-bits.ts";
import { explainedEntry } from "#src/notifications/explain.ts";
import type { CompiledPreferences } from "#src/preferences/compile.ts";
import { inTurn } from "./escalate/escalate.ts";
import type { askingChannel } from "./route/ask-channel.ts";
import type { Conclusion } from "./route/conclusion.ts";
import type { Waiting } from "./route/load.ts";

// What follows a decision, as far as that can be said before it happens. Pure.

/** Of a step nothing is kept but what objected. */
const UNKNOWN = () => undefined;

/** Entries of an escalation at most: holds may follow each other for weeks. */
const STEPS_TOLD = 100;

/** The outside channels that take what is decided. */
export function handOversOf({ handOver = [] }: Conclusion, now: Date): PreviewedHandOver[] {
  const time = timestampFromDate(now);
  return handOver.map((channel) => create(PreviewedHandOverSchema, { channel, time }));
}

/** The turns of its escalation, one after the other, while nobody answers and every channel takes what it is handed. */
export function unanswered(
  askChannel: ReturnType<typeof askingChannel>,
  row: Waiting,
  { escalation, status }: Conclusion,
  own: CompiledPreferences,
  now: Date,
): ExplainedEntry[] {
  let chain = escalation && beginning(escalation.steps, escalation.confirmationRequired, now);
  const told: ExplainedEntry[] = [];
  while (chain?.state === ChainState.WAITING && chain.dueAt !== undefined && told.length < STEPS_TOLD) {
    const at: Date = chain.dueAt;
    const moved = inTurn(chain, (channel) => askChannel(row, channel as Channel, own, at), { status }, at);
    if (moved.commands.length === 0) break;
    chain = moved.chain;
    told.push(...moved.commands.map((command) => entryOf(row, command, at)));
  }
  return told.slice(0, STEPS_TOLD);
}

function entryOf(row: Waiting, command: Command, at: Date): ExplainedEntry {
  const told = toldOf(command);
  if (told !== undefined)
    return explainedEntry(row, { at, status: 0, actor: null, ...told, detail: told.detail ?? null }, UNKNOWN);
  const { channel, step } = command as Extract<Command, { kind: "handOver" }>;
  const entry = create(TimelineEntrySchema, {
    time: timestampFromDate(at),
    channel,
    step,
    actor: "posthorn",
    verdicts: [{ channel, kind: VerdictKind.DELIVER }],
  });
  return create(ExplainedEntrySchema, { entry });
}

/** The batch that one is in, as it stands with it. */
export function batchOutlook(
  { userId, type, priority, channels }: Waiting,
  own: CompiledPreferences,
  { id, kind, state, size, maxSize, openedAt, flushAt, latestFlushAt }: JoinedByOne,
): PreviewedBatch {
  const digested = kind === BatchKind.DIGEST;
  return create(PreviewedBatchSchema, {
    batch: create(BatchSchema, {
      ...{ id, state, size, maxSize, userId },
      kind: kind as BatchKind,
      type: digested ? DIGEST : type,
      priority: (digested ? 0 : priority) as Priority,
      createTime: timestampFromDate(openedAt),
      flushTime: timestampFromDate(flushAt),
    }),
    channels: [...channelsFor(channels, own)],
    latestFlushTime: timestampFromDate(latestFlushAt),
  });
}
