import type { Command } from "commander";
import { ExplainNotificationResponseSchema, SendService } from "#gen/posthorn/v1/send_service_pb.ts";
import { connect, optionsOf } from "../connection.ts";
import { entryLines, headline } from "../explanation.ts";
import { jsonLine, painter, plural } from "../print.ts";
import type { World } from "../world.ts";

export function explainCommand(program: Command, world: World): void {
  program
    .command("explain")
    .description("why a notification came, waits, or did not come")
    .argument("<id>", "the notification")
    .addHelpText(
      "after",
      `
Every decision is shown with all that was asked, in order, for each channel. The first that objects decides; "-" was not
asked any more. Times are the recipient's, with UTC beside them.

Example:
  $ posthorn explain 01938a3e-…`,
    )
    .action(async (id: string, _, command: Command) => {
      const options = optionsOf(command);
      const explanation = await connect(world, options)
        .client(SendService)
        .explainNotification({ id }, { signal: world.signal });
      if (options.json) return world.out(jsonLine(ExplainNotificationResponseSchema, explanation));
      const paint = painter(world);
      const { notification, timeZone, timeline, omitted, bypassedBy } = explanation;
      if (notification !== undefined) world.out(headline(notification, bypassedBy, paint));
      timeline.forEach((entry, index) => {
        if (index === FIRST && omitted > 0) world.out(`\n… ${plural(omitted, "entry", "entries")} left out …`);
        for (const line of entryLines(entry, timeZone, paint)) world.out(line);
      });
    });
}

/** Entries before those that are left out. */
const FIRST = 100;
