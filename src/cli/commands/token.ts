import type { Duration } from "@bufbuild/protobuf/wkt";
import type { Command } from "commander";
import { AdminService, CreateUserTokenResponseSchema } from "#gen/posthorn/v1/admin_service_pb.ts";
import { connect, optionsOf } from "../connection.ts";
import { duration } from "../parse.ts";
import { jsonLine, when } from "../print.ts";
import type { World } from "../world.ts";

export function tokenCommand(program: Command, world: World): void {
  program
    .command("token")
    .description("sign a token for a user, with which an app or browser acts as that user")
    .argument("<user>", "id of the user; they need not exist yet")
    .option("--ttl <duration>", "how long it is good, 10s to 24h (default: 1h)", duration)
    .addHelpText(
      "after",
      `
Prints the token alone on standard output.

Examples:
  $ posthorn token ada
  $ posthorn inbox --api-key "$(posthorn token ada --ttl 5m)"`,
    )
    .action(async (userId: string, _, command: Command) => {
      const options = optionsOf<{ ttl?: Duration }>(command);
      const admin = connect(world, options).client(AdminService);
      const created = await admin.createUserToken({ userId, ttl: options.ttl }, { signal: world.signal });
      if (options.json) return world.out(jsonLine(CreateUserTokenResponseSchema, created));
      world.out(created.token);
      world.err(`for ${userId}, until ${when(created.expireTime)}`);
    });
}
