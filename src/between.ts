import type { Channels } from "#src/channels/channel.ts";
import type { Clock } from "#src/clock.ts";
import type { HandleWork } from "#src/pipeline/consume.ts";
import type { GiveWay } from "#src/pipeline/give-way.ts";
import type { Queue } from "#src/pipeline/queue.ts";
import type { Store } from "#src/store/store.ts";
import type { Live } from "#src/stream/live.ts";
import type { MemorySource } from "#src/telemetry/live-memory.ts";

/** What a test puts between the platform and the parts it works with, to make it fail exactly there. */
export type Between = {
  store?(store: Store): Store;
  queue?(queue: Queue): Queue;
  live?(live: Live): Live;
  channels?(channels: Channels): Channels;
  work?(handle: HandleWork): HandleWork;
  way?(way: GiveWay): GiveWay;
  memory?(watch: MemorySource): MemorySource;
  /** What the limits take for Redis's clock. */
  redisClock?: Clock;
};
