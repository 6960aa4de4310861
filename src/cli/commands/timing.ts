import type { Command } from "commander";
import {
  type GetLearntTimingResponse,
  GetLearntTimingResponseSchema,
  PreferencesService,
} from "#gen/posthorn/v1/preferences_service_pb.ts";
import { connect, optionsOf, userOf } from "../connection.ts";
import { columns, jsonLine, painter, plural, when } from "../print.ts";
import type { World } from "../world.ts";

type Options = { user?: string; reason?: string };

/** Stands in the audit log for what an API key changes. */
const REASON = "posthorn timing";
/** Of the bar of the hour in which the user looks most. */
const BAR = 20;

export function timingCommand(program: Command, world: World): void {
  const timing = program
    .command("timing")
    .description("when a user usually looks, as far as that was learnt")
    .addHelpText(
      "after",
      `
Without a sub-command it shows. Good hours are marked: what its type lets wait comes in one of them.

Examples:
  $ posthorn timing --user ada
  $ posthorn timing forget --user ada --reason "asked by mail"`,
    );
  const withUser = (command: Command) => command.option("--user <id>", "whose; not needed with a user token");

  withUser(timing.command("show", { isDefault: true }).description("show the hours of their clock")).action(
    async (_, command: Command) => {
      const options = optionsOf<Options>(command);
      const connection = connect(world, options);
      const userId = userOf(connection, options.user);
      const learnt = await connection.client(PreferencesService).getLearntTiming({ userId }, { signal: world.signal });
      if (options.json) return world.out(jsonLine(GetLearntTimingResponseSchema, learnt));
      for (const line of lines(learnt)) world.out(line);
    },
  );

  withUser(timing.command("forget").description("forget it, and have what waits for it go"))
    .option("--reason <text>", "why, for the audit log, when an API key does it")
    .action(async (_, command: Command) => {
      const options = optionsOf<Options>(command);
      const connection = connect(world, options);
      const { reconciled } = await connection
        .client(PreferencesService)
        .deleteLearntTiming(
          { userId: userOf(connection, options.user), reason: options.reason ?? REASON },
          { signal: world.signal },
        );
      if (options.json) return world.out(JSON.stringify({ forgotten: reconciled !== undefined }));
      world.err(
        reconciled === undefined
          ? "nothing was learnt"
          : `forgotten; ${plural(reconciled.released, "notification")} released`,
      );
    });

  function lines({ hours, looks, enough, firstTime, lastTime }: GetLearntTimingResponse): string[] {
    if (hours.length === 0) return ["nothing was learnt"];
    const paint = painter(world);
    const most = Math.max(...hours.flatMap((hour) => [hour.weekdayLooks, hour.weekendLooks]));
    const cell = (count: number, good: boolean) => {
      const bar = "#".repeat(Math.round((count / most) * BAR)) || (count > 0 ? "." : "");
      return good ? paint("green", `* ${bar}`) : `  ${bar}`;
    };
    const rows = hours.map(({ hour, weekdayLooks, goodOnWeekdays, weekendLooks, goodOnWeekends }) => [
      `${String(hour).padStart(2, "0")}:00`,
      cell(weekdayLooks, goodOnWeekdays),
      cell(weekendLooks, goodOnWeekends),
    ]);
    const about = `${looks.toFixed(1)} looks from ${when(firstTime)} to ${when(lastTime)}`;
    return [
      `${about}, ${enough ? "enough to go by" : "too few to go by"}`,
      ...columns([["", "Monday to Friday", "weekend"], ...rows]),
    ];
  }
}
