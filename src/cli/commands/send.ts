import { create, type JsonObject } from "@bufbuild/protobuf";
import type { Duration, Timestamp } from "@bufbuild/protobuf/wkt";
import { type Command, Option } from "commander";
import {
  type Channel,
  ChannelSchema,
  Priority,
  PrioritySchema,
  ReasonSchema,
  Status,
  StatusSchema,
} from "#gen/posthorn/v1/notification_pb.ts";
import {
  type SendRequest,
  SendRequestSchema,
  type SendResponse,
  type SendResult,
  SendResultSchema,
  SendService,
} from "#gen/posthorn/v1/send_service_pb.ts";
import { connect, optionsOf } from "../connection.ts";
import {
  duration,
  type EscalationStep,
  enumValue,
  enumWord,
  enumWords,
  escalationStep,
  instant,
  jsonObject,
  several,
  word,
} from "../parse.ts";
import { columns, jsonLine, type Paint, painter, plain, when } from "../print.ts";
import { sendMany } from "../send-many.ts";
import { tellWarnings } from "../warnings.ts";
import { UsageError, type World } from "../world.ts";

type SendOptions = {
  title?: string;
  body?: string;
  data?: JsonObject;
  url?: string;
  image?: string;
  type?: string;
  priority?: Priority;
  channel?: Channel[];
  topic?: string[];
  role?: string[];
  everyone?: boolean;
  tag?: string[];
  at?: Timestamp;
  atLocal?: string;
  ttl?: Duration;
  idempotencyKey?: string;
  dedupKey?: string;
  dedupWindow?: Duration;
  collapseKey?: string;
  groupKey?: string;
  batch: boolean;
  escalate?: EscalationStep[];
  confirm?: boolean;
  sender?: string;
  bypassRateLimit?: boolean;
  wait: Duration | false;
  from?: string;
};

export function sendCommand(program: Command, world: World): void {
  program
    .command("send")
    .description("send a notification")
    .argument("[user...]", "ids of the users who receive it")
    .optionsGroup("What:")
    .option("-t, --title <text>", "one line (default: what the type's wording makes of --data)")
    .option("-b, --body <text>", "more lines")
    .option("--data <json>", "an object for the receiving application", jsonObject)
    .option("--url <url>", "where a click leads")
    .option("--image <url>", "a picture")
    .option("--type <key>", 'notification type (default: "general")')
    .option("-p, --priority <priority>", enumWords(PrioritySchema).join(", "), enumValue(PrioritySchema))
    .option("--tag <tag>", "label; more than once or with commas", several(word))
    .option("--sender <user>", "on whose behalf")
    .optionsGroup("To whom, besides users:")
    .option("--topic <key>", "members of a topic", several(word))
    .option("--role <key>", "users with a role", several(word))
    .option("--everyone", "every user of the tenant")
    .optionsGroup("How and when:")
    .option(
      "--channel <channel>",
      `${enumWords(ChannelSchema).join(", ")} (default: the type's)`,
      several(enumValue(ChannelSchema)),
    )
    .option("--at <time>", "deliver then: +10m, or a time with its zone", instant(world.now))
    .addOption(
      new Option("--at-local <time>", "deliver at this wall-clock time of each user, 2026-03-29T09:00").conflicts("at"),
    )
    .option("--ttl <duration>", "never deliver later than this", duration)
    .option("--dedup-key <key>", "no second one to the same user with this key", word)
    .option("--dedup-window <duration>", "for so long (default: 5m)", duration)
    .option("--collapse-key <key>", "takes the place of earlier ones with this key", word)
    .option("--group-key <key>", "belongs together with others of this key in the inbox", word)
    .option("--no-batch", "by itself: in no batch or digest, whatever type and user say")
    .option(
      "--escalate <channel:time>",
      "unless answered by then, that channel: email:5m,sms:10m, one after the other",
      several(escalationStep),
    )
    .option("--confirm", "reading is not enough: it has to be confirmed")
    .option("--idempotency-key <key>", "makes repeating this command safe (default: a new one)", word)
    .option("--bypass-rate-limit", "pass the limits; audited")
    .addOption(
      new Option("--wait <duration>", "wait for the decision").argParser(duration).default(duration("5s"), "5s"),
    )
    .option("--no-wait", "answer once it is stored")
    .optionsGroup("Many:")
    .option("--from <file>", "one SendRequest in JSON a line; - for standard input")
    .addHelpText(
      "after",
      `
Examples:
  $ posthorn send ada -t "Your order is on its way" --type order_status --data '{"order": 42}'
  $ posthorn send ada grace -t "Server down" -p critical --escalate email:2m,sms:5m --confirm
  $ posthorn send --topic release-notes -t "1.4 is out" --url https://example.com/1.4
  $ posthorn send ada -t "Stand-up" --at +10m --ttl 1h
  $ jq -c '{to: {userIds: [.id]}, content: {title: .text}}' events.json | posthorn send --from -`,
    )
    .action(async (userIds: string[], _, command: Command) => {
      const options = optionsOf<SendOptions>(command);
      const send = () => connect(world, options).client(SendService);
      if (options.from !== undefined) return await sendMany(world, options.from, send(), options.json ?? false);

      if (userIds.length === 0 && !options.topic && !options.role && !options.everyone)
        throw new UsageError(
          "Nobody to send to.",
          'Name users, --topic, --role or --everyone: posthorn send ada -t "Hello"',
        );
      // The wording of a type makes a title of data.
      if (options.title === undefined && (options.type === undefined || options.data === undefined))
        throw new UsageError("Nothing to send.", `Give a title: posthorn send ${userIds[0] ?? "ada"} -t "Hello"`);
      const response = await send().send(requestOf(world, userIds, options), { signal: world.signal });
      tellWarnings(world, response.warnings);
      if (options.json) {
        for (const result of response.results) world.out(jsonLine(SendResultSchema, result));
        if (response.fanoutId) world.out(JSON.stringify({ fanoutId: response.fanoutId }));
      } else for (const line of responseLines(response, painter(world))) world.out(line);
    });
}

function requestOf(world: World, userIds: string[], options: SendOptions): SendRequest {
  return create(SendRequestSchema, {
    to: { userIds, topics: options.topic ?? [], roles: options.role ?? [], everyone: options.everyone ?? false },
    type: options.type ?? "",
    content: {
      title: options.title ?? "",
      body: options.body ?? "",
      url: options.url ?? "",
      imageUrl: options.image ?? "",
      ...(options.data === undefined ? {} : { data: options.data }),
    },
    channels: options.channel ?? [],
    priority: options.priority ?? Priority.UNSPECIFIED,
    tags: options.tag ?? [],
    schedule:
      options.at !== undefined
        ? { case: "scheduleTime", value: options.at }
        : options.atLocal !== undefined
          ? { case: "localScheduleTime", value: options.atLocal }
          : { case: undefined },
    expiry: options.ttl === undefined ? { case: undefined } : { case: "ttl", value: options.ttl },
    idempotencyKey: options.idempotencyKey ?? world.newId(),
    dedupKey: options.dedupKey ?? "",
    dedupWindow: options.dedupWindow,
    collapseKey: options.collapseKey ?? "",
    groupKey: options.groupKey ?? "",
    ...(options.batch ? {} : { batchable: false }),
    ...(options.escalate === undefined && options.confirm === undefined
      ? {}
      : { escalation: { steps: options.escalate ?? [], confirmationRequired: options.confirm ?? false } }),
    senderId: options.sender ?? "",
    bypassRateLimit: options.bypassRateLimit ?? false,
    waitForDecision: options.wait === false ? undefined : options.wait,
  });
}

function responseLines({ results, fanoutId }: SendResponse, paint: Paint): string[] {
  const rows = results.map((result) => [
    paint("dim", result.notificationId),
    plain(result.userId),
    paint(colourOf(result.status), enumWord(StatusSchema, result.status)),
    remarkOf(result),
  ]);
  return [...columns(rows), ...(fanoutId === "" ? [] : [`fan-out ${fanoutId} is creating the others`])];
}

const WAITING: readonly Status[] = [Status.HELD, Status.SCHEDULED, Status.BATCHED, Status.PROCESSING];

function remarkOf(result: SendResult): string {
  if (result.deduplicated) return "deduplicated: an earlier one with this key stands for it";
  const reasons = [...new Set(result.verdicts.map((verdict) => verdict.reason).filter((reason) => reason !== 0))];
  const why = reasons.map((reason) => enumWord(ReasonSchema, reason)).join(", ");
  const waits = WAITING.includes(result.status);
  const until = waits && result.estimatedDeliveryTime ? `until ${when(result.estimatedDeliveryTime)}` : "";
  const queued = result.status === Status.ACCEPTED && result.queued ? "not decided yet" : "";
  return [why, until, queued].filter((part) => part !== "").join(" ");
}

function colourOf(status: Status): "green" | "yellow" | "red" | "cyan" {
  if (status === Status.DELIVERED || status === Status.READ) return "green";
  if (WAITING.includes(status)) return "yellow";
  return status === Status.ACCEPTED ? "cyan" : "red";
}
