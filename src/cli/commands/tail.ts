import { durationMs, type Timestamp, timestampDate } from "@bufbuild/protobuf/wkt";
import type { Command } from "commander";
import { BatchKindSchema, BatchState, BatchStateSchema } from "#gen/posthorn/v1/batch_service_pb.ts";
import { Priority, PrioritySchema, ReasonSchema, StatusSchema } from "#gen/posthorn/v1/notification_pb.ts";
import {
  InboxChanged_ChangeSchema,
  Reset_CauseSchema,
  StreamService,
  type SubscribeResponse,
  SubscribeResponseSchema,
} from "#gen/posthorn/v1/stream_service_pb.ts";
import { connect, optionsOf, userOf } from "../connection.ts";
import { follow } from "../follow.ts";
import { enumValue, enumWord, enumWords, several, wholeNumber, word } from "../parse.ts";
import { jsonLine, type Paint, painter, plain, shorten } from "../print.ts";
import type { World } from "../world.ts";
import { countsLine } from "./inbox.ts";

type TailOptions = {
  user?: string;
  cursor?: string;
  device?: string;
  type?: string[];
  category?: string[];
  topic?: string[];
  minPriority?: Priority;
  status?: boolean;
  heartbeats?: boolean;
  count?: number;
};

export function tailCommand(program: Command, world: World): void {
  program
    .command("tail")
    .description("follow a user's live stream")
    .option("--user <id>", "whose stream; not needed with a user token")
    .option("--cursor <cursor>", "first replay what came after it")
    .option("--device <id>", "name this device, for presence and acks")
    .option("--type <key>", "only these types; more than once or with commas", several(word))
    .option("--category <key>", "only these categories", several(word))
    .option("--topic <key>", "only what was sent to these topics", several(word))
    .option(
      "--min-priority <priority>",
      `only at least: ${enumWords(PrioritySchema).join(", ")}`,
      enumValue(PrioritySchema),
    )
    .option("--status", "also changes of status")
    .option("--heartbeats", "also heartbeats")
    .option("--count <n>", "end after so many notifications", wholeNumber(1, 1_000_000_000))
    .addHelpText(
      "after",
      `
Runs until Ctrl-C. A cut stream is opened again from the last cursor: nothing is missed, nothing comes twice. On ending it
says with which --cursor the next run goes on.

Examples:
  $ posthorn tail
  $ posthorn tail --user ada --min-priority high
  $ posthorn tail --user ada --count 1 --json | jq -r .notification.entry.content.title`,
    )
    .action(async (_, command: Command) => {
      const options = optionsOf<TailOptions>(command);
      const connection = connect(world, options);
      const client = connection.client(StreamService);
      const paint = painter(world);
      // Resumed streams are one device, and a device is one line of presence.
      const deviceId = options.device ?? `cli-${world.newId().slice(0, 8)}`;
      const request = {
        userId: userOf(connection, options.user),
        deviceId,
        includeStatus: options.status ?? false,
        filter: {
          types: options.type ?? [],
          categories: options.category ?? [],
          topics: options.topic ?? [],
          minimumPriority: options.minPriority ?? Priority.UNSPECIFIED,
        },
      };
      let cursor = options.cursor ?? "";
      let seen = 0;
      const events = follow({
        open: (from, signal) => client.subscribe({ ...request, cursor: from }, { signal }),
        cursor,
        signal: world.signal,
        now: world.now,
        random: world.random,
        onCut: (why, pause) => world.err(paint("dim", `… ${plain(why)}; again in ${(pause / 1000).toFixed(1)} s`)),
      });
      for await (const response of events) {
        const { event } = response;
        if (event.value !== undefined && "cursor" in event.value && event.value.cursor) cursor = event.value.cursor;
        if (event.case === "heartbeat" && !options.heartbeats) continue;
        if (options.json) world.out(jsonLine(SubscribeResponseSchema, response));
        else for (const line of eventLines(response, paint, world)) world.out(line);
        if (event.case === "notification" && ++seen === options.count) break;
      }
      if (!options.json && cursor !== "") world.err(paint("dim", `to go on from here: --cursor ${cursor}`));
    });
}

/** One line for what happened; none for what only the machine needs. */
export function eventLines(
  { event }: SubscribeResponse,
  paint: Paint,
  world: Pick<World, "now" | "columns">,
): string[] {
  const line = (mark: string, text: string, at?: Timestamp) => [
    `${paint("dim", clock(at, world.now()))}  ${mark}  ${text}`,
  ];
  const note = (text: string, at?: Timestamp) => line(paint("dim", "·"), paint("dim", plain(text)), at);
  switch (event.case) {
    case "hello": {
      const beat = event.value.heartbeatInterval ? durationMs(event.value.heartbeatInterval) / 1000 : 0;
      return note(
        `connected as ${event.value.deviceId}; inbox at #${event.value.headSequence}, heartbeat every ${beat} s`,
      );
    }
    case "notification": {
      const { entry, replayed, counts } = event.value;
      if (!entry) return [];
      const { title = "", body = "" } = entry.content ?? {};
      const urgent =
        entry.priority >= Priority.HIGH
          ? paint("red", `${enumWord(PrioritySchema, entry.priority).toUpperCase()} `)
          : "";
      const tail = [replayed ? "replayed" : "", counts ? `${counts.unread} unread` : ""].filter((part) => part !== "");
      const text = body === "" ? "" : ` — ${shorten(plain(body), Math.max(20, world.columns - 60 - title.length))}`;
      return line(
        paint("green", "▸"),
        `${paint("cyan", `#${entry.sequence}`)}  ${plain(entry.type)}  ${urgent}${paint("bold", plain(title))}${text}` +
          (tail.length === 0 ? "" : paint("dim", `  (${tail.join(", ")})`)),
        entry.arriveTime,
      );
    }
    case "caughtUp":
      return event.value.counts ? note(`caught up: ${countsLine(event.value.counts)}`) : note("caught up");
    case "status": {
      const { notificationId, status, reason, time } = event.value;
      const why = reason === 0 ? "" : ` (${enumWord(ReasonSchema, reason)})`;
      return note(`${notificationId} is ${enumWord(StatusSchema, status)}${why}`, time);
    }
    case "inbox": {
      const { change, notificationIds, all, counts } = event.value;
      const which = all
        ? "everything"
        : notificationIds.length === 1
          ? notificationIds[0]
          : `${notificationIds.length} entries`;
      return note(`${enumWord(InboxChanged_ChangeSchema, change)}: ${which}${counts ? `; ${countsLine(counts)}` : ""}`);
    }
    case "preferences":
      return note(`preferences changed: ${event.value.changedFields.join(", ")}`);
    case "batch": {
      const { batchId, kind, state, size, flushTime, notificationId } = event.value;
      const what = `${enumWord(BatchKindSchema, kind)} ${batchId}`;
      if (state === BatchState.CLOSED)
        return note(`${what} closed with ${size}${notificationId === "" ? "" : `: ${notificationId}`}`, flushTime);
      const until = flushTime ? `, closes by ${timestampDate(flushTime).toISOString()}` : "";
      return note(`${what} is ${enumWord(BatchStateSchema, state)} with ${size}${until}`);
    }
    case "heartbeat":
      return note("heartbeat");
    case "reset":
      return note(`history was trimmed (${enumWord(Reset_CauseSchema, event.value.cause)}): read the inbox again`);
    case "reconnect":
      return [];
    case "tokenExpiring":
      return note(
        `the token ends at ${event.value.expireTime ? timestampDate(event.value.expireTime).toISOString() : "?"}`,
      );
    case "announcement": {
      const { content, topic, time } = event.value;
      const to = topic === "" ? "announcement" : `announcement to ${topic}`;
      return line(paint("magenta", "»"), `${to}: ${paint("bold", plain(content?.title ?? ""))}`, time);
    }
    default:
      return note("an event this version does not know");
  }
}

/** Local time of day, to the millisecond. */
function clock(time: Timestamp | undefined, now: Date): string {
  const at = time ? timestampDate(time) : now;
  const two = (n: number) => String(n).padStart(2, "0");
  const ms = String(at.getMilliseconds()).padStart(3, "0");
  return `${two(at.getHours())}:${two(at.getMinutes())}:${two(at.getSeconds())}.${ms}`;
}
