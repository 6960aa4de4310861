// The platform as `posthorn serve --json` runs it, with outside channels: each takes what it is given, refuses it or
// fails, by what it is given.
import { Channel } from "#gen/posthorn/v1/notification_pb.ts";
import type { Message, Outcome, OutsideChannel } from "#src/channels/channel.ts";
import { readConfig } from "#src/config.ts";
import { startPlatform } from "#src/main.ts";
import { createLogger } from "#src/telemetry/logger.ts";

async function deliver({ content: { title } }: Message): Promise<Outcome> {
  if (title.length % 4 === 1) return { kind: "rejected", cause: new Error("refused") };
  if (title.length % 4 === 2) return { kind: "retry", cause: new Error("not now") };
  if (title.length % 4 === 3) throw new Error("broken");
  return { kind: "sent" };
}

const outside = [Channel.EMAIL, Channel.SMS, Channel.PUSH, Channel.WEBHOOK, Channel.CHAT];
const channels = new Map(outside.map((channel): [Channel, OutsideChannel] => [channel, { deliver }]));

const config = readConfig(process.env);
const log = createLogger({ ...config.telemetry });
const platform = await startPlatform(config, { log, between: { channels: () => channels } });
process.once("SIGTERM", () => void platform[Symbol.asyncDispose]().then(() => process.exit()));
process.stdout.write(`${JSON.stringify({ server: platform.grpcUrl, httpUrl: platform.httpUrl })}\n`);
