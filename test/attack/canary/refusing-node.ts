// The platform as `posthorn serve --json` runs it, with outside channels whose providers refuse, each in its own way
// and saying all they were told, and what they know of the recipient besides: CANARY_WORDS. One takes every other message.
import { Channel } from "#gen/posthorn/v1/notification_pb.ts";
import type { Message, Outcome, OutsideChannel } from "#src/channels/channel.ts";
import { readConfig } from "#src/config.ts";
import { startPlatform } from "#src/main.ts";
import { createLogger } from "#src/telemetry/logger.ts";

const { CANARY_WORDS: words = "", ...env } = process.env;

/** Wherever an SDK's error may hold what its server has answered. */
function refusal({ content, ...message }: Message): Error {
  const said = `refused: ${words} ${JSON.stringify(content)}`;
  const cause = Object.assign(new Error(`${said}\n    at ${words} (file:///sdk.js:1:1)`), { code: said, body: said });
  const error = Object.assign(new Error(said, { cause }), { code: said, response: { data: said }, content, message });
  return Object.assign(error, { name: said, message: said });
}

let chats = 0;
const ways: [Channel, (message: Message) => Outcome][] = [
  [Channel.EMAIL, (message) => ({ kind: "rejected", cause: refusal(message) })],
  [Channel.SMS, (message) => ({ kind: "retry", cause: refusal(message) })],
  [
    Channel.PUSH,
    (message) => {
      throw refusal(message);
    },
  ],
  [Channel.WEBHOOK, (message) => ({ kind: "rejected", cause: { said: words, content: message.content } })],
  [Channel.CHAT, () => (chats++ % 2 === 0 ? { kind: "rejected", cause: words } : { kind: "sent" })],
];
const channels = new Map(
  ways.map(([channel, answer]): [Channel, OutsideChannel] => [
    channel,
    {
      async deliver(message) {
        process.stdout.write(`${JSON.stringify({ refused: channel })}\n`);
        return answer(message);
      },
    },
  ]),
);

const config = readConfig(env);
const log = createLogger({ ...config.telemetry });
const platform = await startPlatform(config, { log, between: { channels: () => channels } });
process.once("SIGTERM", () => void platform[Symbol.asyncDispose]().then(() => process.exit()));
process.stdout.write(`${JSON.stringify({ server: platform.grpcUrl, httpUrl: platform.httpUrl })}\n`);
