import { appendFile, mkdir } from "node:fs/promises";
import { join } from "node:path";
import { toJson } from "@bufbuild/protobuf";
import { Channel, ContentSchema, Priority } from "#gen/posthorn/v1/notification_pb.ts";
import type { Channels, OutsideChannel } from "./channel.ts";

const OUTSIDE = Object.entries(Channel).filter(([, channel]) => channel > Channel.IN_APP);

/**
 * All outside channels, for development: each appends what it is given to a file in the folder, `email.jsonl` and so on,
 * a line of JSON for every hand-over. It knows no keys: what is handed over twice is there twice, with the same
 * `idempotencyKey`. Content rests in these files, so this must not run where real people's is sent; what it makes is
 * for its own user alone to read, a folder that is there already stays as open as it is.
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
      await mkdir(folder, { recursive: true, mode: 0o700 });
      // One write at the end of the file, so that the lines of several processes do not mix.
      await appendFile(join(folder, `${name}.jsonl`), `${JSON.stringify(line)}\n`, { mode: 0o600 });
      return { kind: "sent" };
    },
  };
}

const PRIORITIES = new Map(Object.entries(Priority).map(([name, value]): [number, string] => [value, name]));
