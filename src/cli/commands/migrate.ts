import type { Command } from "commander";
import { readConfig } from "#src/config.ts";
import { optionsOf } from "../connection.ts";
import type { World } from "../world.ts";

export function migrateCommand(program: Command, world: World): void {
  program
    .command("migrate")
    .description("bring the database to this version's schema")
    .addHelpText(
      "after",
      `
The database is POSTHORN_DATABASE_URL; in development without one, that of a running \`npm start\`, else the local one is
started for it. Servers migrate by themselves at their start; any number of them may do it at once.

Example:
  $ POSTHORN_DATABASE_URL=postgres://posthorn@db/posthorn posthorn migrate`,
    )
    .action(async (_, command: Command) => {
      const options = optionsOf(command);
      // The database alone counts here, so nothing else needs to be configured.
      const given = world.env.POSTHORN_DATABASE_URL || world.env.DATABASE_URL || world.env.DB_CONNECTION;
      const configured = given || readConfig(world.env).postgres.url;
      const { migrate } = await import("#src/store/migrate.ts");
      const report = (where: string) => {
        if (options.json) world.out(JSON.stringify({ migrated: true }));
        else world.out(`the database ${where} is up to date`);
      };
      if (configured) {
        await migrate(configured, world.now());
        return report(`at ${hostOf(configured)}`);
      }
      const { runningServices, startServices } = await import("#src/dev/services.ts");
      const running = await runningServices(world.dataDir);
      if (running) {
        await migrate(running.databaseUrl, world.now());
        return report("of the running platform");
      }
      await using services = await startServices({ dataDir: world.dataDir, log: world.err, signal: world.signal });
      await migrate(services.databaseUrl, world.now());
      report("in .data");
    });
}

function hostOf(databaseUrl: string): string {
  return URL.canParse(databaseUrl) ? new URL(databaseUrl).host : "that was configured";
}
