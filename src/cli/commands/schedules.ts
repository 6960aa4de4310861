import type { JsonObject } from "@bufbuild/protobuf";
import type { Command } from "commander";
import {
  type Schedule,
  Schedule_StateSchema,
  ScheduleSchema,
  ScheduleService,
} from "#gen/posthorn/v1/schedule_service_pb.ts";
import { connect, optionsOf } from "../connection.ts";
import { enumWord, jsonObject, several, word } from "../parse.ts";
import { columns, jsonLine, plain, plural, when } from "../print.ts";
import { tellWarnings } from "../warnings.ts";
import { UsageError, type World } from "../world.ts";

type CreateOptions = {
  rule: string;
  start: string;
  zone?: string;
  title?: string;
  body?: string;
  data?: JsonObject;
  type?: string;
  topic?: string[];
  role?: string[];
};

export function schedulesCommand(program: Command, world: World): void {
  const schedules = program
    .command("schedules")
    .description("what is sent again and again")
    .addHelpText(
      "after",
      `
Examples:
  $ posthorn schedules create standup ann ben --rule "FREQ=WEEKLY;BYDAY=MO,TU,WE,TH,FR" \\
      --start 2026-01-01T09:30 --zone Europe/Berlin --title "Stand-up in ten minutes"
  $ posthorn schedules create report --topic team --rule "FREQ=WEEKLY;BYDAY=MO" --start 2026-01-01T08:00 \\
      --title "Your week"                       # without a zone: at 08:00 of each recipient's clock
  $ posthorn schedules pause standup`,
    );

  schedules
    .command("create")
    .description("send by a rule")
    .argument("<key>", "the schedule's name")
    .argument("[user...]", "ids of the users who receive it")
    .requiredOption("--rule <rrule>", "when, as an RFC 5545 recurrence rule", word)
    .requiredOption("--start <time>", "wall-clock time the rule starts with, 2026-03-29T09:00", word)
    .option("-t, --title <text>", "one line (default: what the type's wording makes of --data)")
    .option("-b, --body <text>", "more lines")
    .option("--data <json>", "an object for the receiving application", jsonObject)
    .option("--zone <name>", "IANA zone (default: each recipient's own)")
    .option("--type <key>", 'notification type (default: "general")')
    .option("--topic <key>", "members of a topic", several(word))
    .option("--role <key>", "users with a role", several(word))
    .action(async (key: string, userIds: string[], _, command: Command) => {
      const options = optionsOf<CreateOptions>(command);
      const { topic: topics = [], role: roles = [] } = options;
      if (userIds.length + topics.length + roles.length === 0)
        throw new UsageError("Nobody would receive it.", "Name users, or give --topic or --role.");
      // The wording of a type makes a title of data.
      if (options.title === undefined && (options.type === undefined || options.data === undefined))
        throw new UsageError("Nothing would be sent.", "Give --title, or --type and --data of a type that words them.");
      const { title = "", body = "", data } = options;
      const content = { title, body, ...(data && { data }) };
      const request = { to: { userIds, topics, roles }, type: options.type ?? "", content };
      const { rule: recurrence, start: localStartTime, zone: timeZone = "" } = options;
      const { schedule, warnings } = await connect(world, options)
        .client(ScheduleService)
        .createSchedule({ schedule: { key, request, recurrence, localStartTime, timeZone } }, { signal: world.signal });
      tellWarnings(world, warnings);
      show(schedule === undefined ? [] : [schedule], options.json);
      if (!options.json && schedule !== undefined)
        for (const line of columns(
          schedule.nextOccurrences.map(({ localTime, time }) => [localTime, time === undefined ? "" : when(time)]),
          "  ",
        ))
          world.err(line);
    });

  schedules
    .command("list")
    .description("list the schedules by key")
    .action(async (_, command: Command) => {
      const options = optionsOf(command);
      const client = connect(world, options).client(ScheduleService);
      const all: Schedule[] = [];
      for (let pageToken = ""; ; ) {
        const page = await client.listSchedules({ pageSize: 200, pageToken }, { signal: world.signal });
        all.push(...page.schedules);
        pageToken = page.nextPageToken;
        if (pageToken === "") break;
      }
      show(all, options.json);
    });

  for (const [name, description] of [
    ["pause", "stop a schedule for a while"],
    ["resume", "go on with a schedule, from its next occurrence"],
  ] as const) {
    schedules
      .command(name)
      .description(description)
      .argument("<key>", "the schedule")
      .action(async (key: string, _, command: Command) => {
        const options = optionsOf(command);
        const client = connect(world, options).client(ScheduleService);
        const turn = name === "pause" ? client.pauseSchedule : client.resumeSchedule;
        const { schedule } = await turn({ key }, { signal: world.signal });
        show(schedule === undefined ? [] : [schedule], options.json);
      });
  }

  schedules
    .command("delete")
    .description("delete a schedule; what it has sent stays")
    .argument("<key>", "the schedule")
    .option("--cancel-waiting", "cancel what of its notifications still waits")
    .action(async (key: string, _, command: Command) => {
      const options = optionsOf<{ cancelWaiting?: true }>(command);
      const { cancelWaiting = false } = options;
      const { cancelled } = await connect(world, options)
        .client(ScheduleService)
        .deleteSchedule({ key, cancelWaiting }, { signal: world.signal });
      if (cancelWaiting && !options.json) world.err(`${plural(cancelled, "notification")} cancelled`);
    });

  function show(found: readonly Schedule[], json: boolean | undefined): void {
    if (json) for (const schedule of found) world.out(jsonLine(ScheduleSchema, schedule));
    else
      for (const line of columns(
        found.map((schedule) => [
          schedule.key,
          enumWord(Schedule_StateSchema, schedule.state),
          schedule.recurrence,
          schedule.timeZone || "each recipient's zone",
          schedule.nextOccurrences[0]?.localTime ?? "",
          plain(schedule.request?.content?.title ?? ""),
        ]),
      ))
        world.out(line);
  }
}
