import type { Command } from "commander";
import { NotificationSchema, StatusSchema } from "#gen/posthorn/v1/notification_pb.ts";
import { SendService } from "#gen/posthorn/v1/send_service_pb.ts";
import { connect, optionsOf } from "../connection.ts";
import { enumWord, word } from "../parse.ts";
import { jsonLine, plain, when } from "../print.ts";
import type { World } from "../world.ts";

export function confirmCommand(program: Command, world: World): void {
  program
    .command("confirm")
    .description("say that its recipient has confirmed a notification; ends its escalation")
    .argument("<id>", "the notification")
    .requiredOption("--reason <text>", "how you know, for the audit log", word)
    .addHelpText("after", '\nExample:\n  $ posthorn confirm 01938a3e-… --reason "answered by phone"')
    .action(async (id: string, _, command: Command) => {
      const options = optionsOf<{ reason: string }>(command);
      const { notification } = await connect(world, options)
        .client(SendService)
        .confirmNotification({ id, reason: options.reason }, { signal: world.signal });
      if (notification === undefined) return;
      if (options.json) return world.out(jsonLine(NotificationSchema, notification));
      const at = notification.confirmTime ? ` at ${when(notification.confirmTime)}` : "";
      world.out(
        `confirmed${at}; ${plain(notification.userId)} has it as ${enumWord(StatusSchema, notification.status)}`,
      );
    });
}
