import type { Command } from "commander";
import { AdminService, type Tenant, Tenant_StateSchema, TenantSchema } from "#gen/posthorn/v1/admin_service_pb.ts";
import { connect, optionsOf } from "../connection.ts";
import { enumWord } from "../parse.ts";
import { columns, jsonLine, plain, when } from "../print.ts";
import type { World } from "../world.ts";

export function tenantCommand(program: Command, world: World): void {
  const tenant = program
    .command("tenant")
    .description("create and look at tenants; for the operator")
    .addHelpText(
      "after",
      `
Examples:
  $ posthorn tenant create "Acme"
  $ posthorn tenant list
  $ posthorn key create "backend" --scope all --tenant <id>`,
    );

  tenant
    .command("create")
    .description("create a tenant")
    .argument("<name>", "for people")
    .action(async (displayName: string, _, command: Command) => {
      const options = optionsOf(command);
      const admin = connect(world, options, "operator").client(AdminService);
      const { tenant: created } = await admin.createTenant({ displayName }, { signal: world.signal });
      if (!created) return;
      show([created], options.json);
      if (!options.json) world.err(`next: posthorn key create "backend" --scope all --tenant ${created.id}`);
    });

  tenant
    .command("get")
    .description("show a tenant; without an id the caller's own")
    .argument("[id]", "which tenant")
    .action(async (id: string | undefined, _, command: Command) => {
      const options = optionsOf(command);
      const admin = connect(world, options, id === undefined ? "key" : "operator").client(AdminService);
      const { tenant: found } = await admin.getTenant({ id: id ?? "" }, { signal: world.signal });
      if (found) show([found], options.json);
    });

  tenant
    .command("list")
    .description("list all tenants, oldest first")
    .action(async (_, command: Command) => {
      const options = optionsOf(command);
      const admin = connect(world, options, "operator").client(AdminService);
      const all: Tenant[] = [];
      for (let pageToken = ""; ; ) {
        const page = await admin.listTenants({ pageSize: 200, pageToken }, { signal: world.signal });
        all.push(...page.tenants);
        pageToken = page.nextPageToken;
        if (pageToken === "") break;
      }
      show(all, options.json);
    });

  function show(tenants: Tenant[], json: boolean | undefined): void {
    if (json) for (const each of tenants) world.out(jsonLine(TenantSchema, each));
    else
      for (const line of columns(
        tenants.map((each) => [
          each.id,
          enumWord(Tenant_StateSchema, each.state),
          when(each.createTime),
          plain(each.displayName),
        ]),
      ))
        world.out(line);
  }
}
