import type { JsonObject } from "@bufbuild/protobuf";
import type { Duration, Timestamp } from "@bufbuild/protobuf/wkt";
import type { Command } from "commander";
import { type Channel, ChannelSchema, type Priority, PrioritySchema } from "#gen/posthorn/v1/notification_pb.ts";
import { PreviewSendResponseSchema, SendService } from "#gen/posthorn/v1/send_service_pb.ts";
import { connect, optionsOf } from "../connection.ts";
import { entryLines } from "../explanation.ts";
import { outlookLines } from "../outlook.ts";
import {
  duration,
  type EscalationStep,
  enumValue,
  enumWords,
  escalationStep,
  instant,
  jsonObject,
  several,
  word,
} from "../parse.ts";
import { jsonLine, painter, plain } from "../print.ts";
import { tellWarnings } from "../warnings.ts";
import type { World } from "../world.ts";

type WhatIfOptions = {
  type?: string;
  at?: Timestamp;
  priority?: Priority;
  channel?: Channel[];
  title: string;
  data?: JsonObject;
  tag?: string[];
  sender?: string;
  ttl?: Duration;
  dedupKey?: string;
  schedule?: Timestamp;
  scheduleLocal?: string;
  batch: boolean;
  escalate?: EscalationStep[];
  confirm?: boolean;
  bypassRateLimit?: boolean;
};

export function whatIfCommand(program: Command, world: World): void {
  program
    .command("what-if")
    .description("what would become of a notification, and why; sends and counts nothing")
    .argument("<user>", "who would receive it")
    .option("--type <key>", 'notification type (default: "general")')
    .option("--at <time>", "sent then: +10m, or a time with its zone (default: now)", instant(world.now))
    .option("-p, --priority <priority>", enumWords(PrioritySchema).join(", "), enumValue<Priority>(PrioritySchema))
    .option(
      "--channel <channel>",
      `${enumWords(ChannelSchema).join(", ")} (default: the type's)`,
      several(enumValue<Channel>(ChannelSchema)),
    )
    .option("-t, --title <text>", "one line, for filters that ask for it; '' for the type's wording", "What if")
    .option("--data <json>", "an object, for filters that ask for it", jsonObject)
    .option("--tag <tag>", "label; more than once or with commas", several(word))
    .option("--sender <user>", "on whose behalf")
    .option("--ttl <duration>", "never deliver later than this", duration)
    .option("--dedup-key <key>", "no second one to the same user with this key", word)
    .option("--schedule <time>", "to be delivered then", instant(world.now))
    .option("--schedule-local <time>", "to be delivered at this wall-clock time of the user, 2026-03-29T09:00")
    .option(
      "--escalate <channel:time>",
      "unless answered by then, that channel: email:5m,sms:10m, one after the other",
      several(escalationStep),
    )
    .option("--confirm", "reading is not enough: it has to be confirmed")
    .option("--no-batch", "by itself: in no batch or digest, whatever type and user say")
    .option("--bypass-rate-limit", "as if it passed the limits")
    .addHelpText(
      "after",
      `
By the rules, batches and limits as they are now, as if nobody else sent meanwhile. Read it like \`posthorn explain\`; then
come the batch that it would be in, the channels that would be handed it, and the steps of its escalation.

Example:
  $ posthorn what-if ada --type order_status --at 2026-11-28T23:30+01:00`,
    )
    .action(async (user: string, _, command: Command) => {
      const options = optionsOf<WhatIfOptions>(command);
      const answer = await connect(world, options)
        .client(SendService)
        .previewSend(requestOf(user, options), { signal: world.signal });
      if (options.json) return world.out(jsonLine(PreviewSendResponseSchema, answer));
      tellWarnings(world, answer.warnings);
      if (answer.duplicateOf !== "")
        return world.out(`not sent: ${plain(answer.duplicateOf)} stands for it (dedup key)`);
      const lines = answer.timeline.flatMap((entry) => entryLines(entry, answer.timeZone, painter(world)));
      for (const line of [...lines.slice(1), ...outlookLines(answer, painter(world))]) world.out(line);
      const { title = "", body = "" } = answer.content ?? {};
      if (options.title === "") world.out(`reads: ${plain(body === "" ? title : `${title} — ${body}`)}`);
    });
}

function requestOf(user: string, options: WhatIfOptions) {
  const { at, title, data, ttl, schedule, scheduleLocal, escalate: steps, confirm: confirmationRequired } = options;
  return {
    request: {
      to: { userIds: [user] },
      type: options.type ?? "",
      content: { title, ...(data && { data }) },
      channels: options.channel ?? [],
      priority: options.priority ?? 0,
      tags: options.tag ?? [],
      senderId: options.sender ?? "",
      dedupKey: options.dedupKey ?? "",
      bypassRateLimit: options.bypassRateLimit ?? false,
      ...(options.batch ? {} : { batchable: false }),
      ...((steps ?? confirmationRequired) === undefined
        ? {}
        : { escalation: { steps: steps ?? [], confirmationRequired: confirmationRequired ?? false } }),
      ...(ttl && { expiry: { case: "ttl" as const, value: ttl } }),
      ...(schedule && { schedule: { case: "scheduleTime" as const, value: schedule } }),
      ...(scheduleLocal && { schedule: { case: "localScheduleTime" as const, value: scheduleLocal } }),
    },
    ...(at && { time: at }),
  };
}
