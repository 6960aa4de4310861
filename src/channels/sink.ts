import { appendFile, mkdir } from "node:fs/promises";
import { join } from "node:path";
import { toJson } from "@bufbuild/protobuf";
import { Channel, ContentSchema, Priority } from "#gen/posthorn/v1/notification_pb.ts";
import type { Channels, OutsideChannel } from "./channel.ts";

const OUTSIDE = Object.entries(Channel).filter(([, channel]) => channel > Channel.IN_APP);

/**
 * All outside channels, for development: each appends what it is given to a file in the folder, `email.jsonl` and so on,
 * a line of JSON for every hand-over. It knows no keys: what is handed over twice is there twice, with the same
 * `idempotencyKey`. Content rests in these files, so this must not run where real people's is sent.
 */
export function sinkChannels(folder: string): Channels {
  return new Map(
    OUTSIDE.map(([name, channel]): [Channel, OutsideChannel] => [channel, sink(folder, name.toLowerCase())]),
  );
}

function sink(folder: string, name: string): OutsideChannel {
  return {
    async deliver({ content, at, priority, channel: _, ...message }) {
      const line = {
        at: at.toISOString(),
        ...message,
        priority: PRIORITIES.get(priority) ?? "PRIORITY_UNSPECIFIED",
        content: toJson(ContentSchema, content),
      };
      await mkdir(folder, { recursive: true });
      // One write at the end of the file, so that the lines of several processes do not mix.
      await appendFile(join(folder, `${name}.jsonl`), `${JSON.stringify(line)}\n`);
      return { kind: "sent" };
    },
  };
}

const PRIORITIES = new Map(Object.entries(Priority).map(([name, value]): [number, string] => [value, name]));
