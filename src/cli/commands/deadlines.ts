import type { JsonObject } from "@bufbuild/protobuf";
import type { Duration, Timestamp } from "@bufbuild/protobuf/wkt";
import type { Command } from "commander";
import { type Deadline, DeadlineSchema, ScheduleService } from "#gen/posthorn/v1/schedule_service_pb.ts";
import { connect, optionsOf } from "../connection.ts";
import { duration, instant, jsonObject, several } from "../parse.ts";
import { columns, jsonLine, plain, plural, when } from "../print.ts";
import { tellWarnings } from "../warnings.ts";
import { UsageError, type World } from "../world.ts";

type SetOptions = {
  at: Timestamp;
  title?: string;
  body?: string;
  data?: JsonObject;
  type?: string;
  remind?: Duration[];
};

export function deadlinesCommand(program: Command, world: World): void {
  const deadlines = program
    .command("deadlines")
    .description("by when users have to do something, and what reminds them")
    .addHelpText(
      "after",
      `
Examples:
  $ posthorn deadlines set ann task-42 --at +3d --title "Hand in the report"     # reminds 24 and 2 hours before
  $ posthorn deadlines set ann task-42 --at +5d --title "Hand in the report" --remind 7d,1h
  $ posthorn deadlines delete ann task-42                                        # it is done`,
    );

  deadlines
    .command("set")
    .description("create a deadline, or move it with its reminders")
    .argument("<user>", "whose")
    .argument("<key>", "the deadline's name, such as the id of the task")
    .requiredOption("--at <time>", "by when: +3d, or a time with its zone", instant(world.now))
    .option("-t, --title <text>", "what the reminders say (default: what the type's wording makes of --data)")
    .option("-b, --body <text>", "more lines")
    .option("--data <json>", "an object for the receiving application", jsonObject)
    .option("--type <key>", 'notification type of the reminders (default: "general")')
    .option("--remind <duration>", "so long before, 1h; more than once or with commas", several(duration))
    .action(async (userId: string, key: string, _, command: Command) => {
      const options = optionsOf<SetOptions>(command);
      // The wording of a type makes a title of data.
      if (options.title === undefined && (options.type === undefined || options.data === undefined))
        throw new UsageError(
          "The reminders would say nothing.",
          "Give --title, or --type and --data of a type that words them.",
        );
      const { title = "", body = "", data } = options;
      const { deadline, warnings } = await connect(world, options)
        .client(ScheduleService)
        .upsertDeadline(
          {
            deadline: {
              userId,
              key,
              type: options.type ?? "",
              time: options.at,
              content: { title, body, ...(data && { data }) },
              ...(options.remind === undefined ? {} : { reminderOffsets: { offsets: options.remind } }),
            },
          },
          { signal: world.signal },
        );
      tellWarnings(world, warnings);
      show(deadline === undefined ? [] : [deadline], options.json);
    });

  deadlines
    .command("list")
    .description("list a user's deadlines by key")
    .argument("<user>", "whose")
    .action(async (userId: string, _, command: Command) => {
      const options = optionsOf(command);
      const client = connect(world, options).client(ScheduleService);
      const all: Deadline[] = [];
      for (let pageToken = ""; ; ) {
        const page = await client.listDeadlines({ userId, pageSize: 200, pageToken }, { signal: world.signal });
        all.push(...page.deadlines);
        pageToken = page.nextPageToken;
        if (pageToken === "") break;
      }
      show(all, options.json);
    });

  deadlines
    .command("delete")
    .description("delete a deadline and cancel its reminders")
    .argument("<user>", "whose")
    .argument("<key>", "the deadline")
    .action(async (userId: string, key: string, _, command: Command) => {
      const options = optionsOf(command);
      const { cancelled } = await connect(world, options)
        .client(ScheduleService)
        .deleteDeadline({ userId, key }, { signal: world.signal });
      if (!options.json) world.err(`${plural(cancelled, "reminder")} cancelled`);
    });

  function show(found: readonly Deadline[], json: boolean | undefined): void {
    if (json) for (const deadline of found) world.out(jsonLine(DeadlineSchema, deadline));
    else
      for (const line of columns(
        found.map((deadline) => [
          deadline.key,
          when(deadline.time),
          plain(deadline.content?.title ?? ""),
          `reminds: ${deadline.reminders.map(({ time }) => when(time)).join(", ") || "no more"}`,
        ]),
      ))
        world.out(line);
  }
}
