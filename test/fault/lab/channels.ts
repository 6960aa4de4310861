import { mkdtemp, readdir, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Channel } from "#gen/posthorn/v1/notification_pb.ts";
import type { Channels, OutsideChannel } from "#src/channels/channel.ts";
import { sinkChannels } from "#src/channels/sink.ts";

/** A hand-over as a channel was given it. */
export type HandedOver = { idempotencyKey: string; notificationId: string; step: number; channel: Channel };

/**
 * Outside channels of the lab: all write down what they are given, in a folder that the nodes of a site share. PUSH takes
 * nothing, as where an app was removed. With `hang` none ever answers.
 */
export function labChannels(folder: string, { hang = false } = {}): Channels {
  return new Map(
    [...sinkChannels(folder)].map(([channel, sink]): [Channel, OutsideChannel] => [
      channel,
      {
        async deliver(message, signal) {
          const outcome = await sink.deliver(message, signal);
          if (hang) return new Promise<never>(() => undefined);
          return channel === Channel.PUSH ? { kind: "rejected", cause: new Error("no such device") } : outcome;
        },
      },
    ]),
  );
}

/** A folder for them, gone with the lab. */
export async function labFolder(): Promise<{ folder: string } & AsyncDisposable> {
  const folder = await mkdtemp(join(tmpdir(), "posthorn-lab-"));
  return { folder, [Symbol.asyncDispose]: () => rm(folder, { recursive: true, force: true }) };
}

/** Everything that was handed over, in no order. */
export async function handedOver(folder: string): Promise<HandedOver[]> {
  const files = (await readdir(folder)).filter((name) => name.endsWith(".jsonl"));
  const lines = await Promise.all(
    files.map(async (name) => {
      const channel = Channel[name.slice(0, -".jsonl".length).toUpperCase() as keyof typeof Channel];
      const text = await readFile(join(folder, name), "utf8");
      // A process that was killed while it wrote has handed nothing over, and noted nothing.
      const whole = text.split("\n").filter((line) => line.endsWith("}"));
      return whole.map((line): HandedOver => ({ ...JSON.parse(line), channel }));
    }),
  );
  return lines.flat();
}
