import type { Command } from "commander";
import {
  AdminService,
  ScopeSchema,
  WhoAmIResponse_KindSchema,
  WhoAmIResponseSchema,
} from "#gen/posthorn/v1/admin_service_pb.ts";
import { connect, optionsOf } from "../connection.ts";
import { enumWord } from "../parse.ts";
import { columns, jsonLine, plain, when } from "../print.ts";
import type { World } from "../world.ts";

export function whoamiCommand(program: Command, world: World): void {
  program
    .command("whoami")
    .description("say who the server takes you for")
    .addHelpText("after", "\nExample:\n  $ posthorn whoami --json | jq -r .tenantId")
    .action(async (_, command: Command) => {
      const options = optionsOf(command);
      const connection = connect(world, options);
      const me = await connection.client(AdminService).whoAmI({}, { signal: world.signal });
      if (options.json) return world.out(jsonLine(WhoAmIResponseSchema, me));
      const rows = [
        ["kind", enumWord(WhoAmIResponse_KindSchema, me.kind)],
        ["server", connection.server],
        ["tenant", me.tenantId],
        ["API key", me.apiKeyId],
        ["user", plain(me.userId)],
        ["scopes", me.scopes.map((scope) => enumWord(ScopeSchema, scope)).join(", ")],
        ["expires", me.expireTime ? when(me.expireTime) : "never"],
      ];
      for (const line of columns(rows.filter(([, value]) => value !== ""))) world.out(line);
    });
}
