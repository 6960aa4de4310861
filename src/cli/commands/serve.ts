import type { Command } from "commander";
import { configHelp } from "#src/config/describe.ts";
import { readConfig } from "#src/config.ts";
import { optionsOf } from "../connection.ts";
import type { World } from "../world.ts";

export function serveCommand(program: Command, world: World): void {
  program
    .command("serve")
    .description("run the platform; in development with everything it needs")
    .option("--dev", "in development, whatever POSTHORN_ENV says; what `npm start` runs")
    .addHelpText(
      "after",
      () => `
In development, Postgres, NATS and Redis that are not configured are started on free ports with their data in .data, ports
that are taken are replaced by free ones, and the first start makes a tenant, an API key and a user token. In staging and
production nothing is made up: every missing setting is named at once.

Stops on Ctrl-C or SIGTERM: streams are asked to go elsewhere, calls under way are finished.

Examples:
  $ posthorn serve
  $ POSTHORN_DATABASE_URL=postgres://… posthorn serve
  $ POSTHORN_ENV=production POSTHORN_ROLES=api,stream posthorn serve

Configuration, from the environment:

${configHelp()}`,
    )
    .action(async (_, command: Command) => {
      const options = optionsOf<{ dev?: boolean }>(command);
      const env = options.dev ? { ...world.env, POSTHORN_ENV: "development" } : world.env;
      const config = readConfig(env);
      if (config.environment === "development") {
        const { serveDevelopment } = await import("../development.ts");
        return serveDevelopment(world, env, options.json ?? false);
      }
      const [{ startPlatform }, { createLogger }] = await Promise.all([
        import("#src/main.ts"),
        import("#src/telemetry/logger.ts"),
      ]);
      const { instanceId } = config;
      await using platform = await startPlatform(config, { log: createLogger({ ...config.telemetry, instanceId }) });
      const { grpcUrl, httpUrl } = platform;
      if (options.json) world.out(JSON.stringify({ server: grpcUrl, httpUrl }));
      else world.out(`gRPC on ${grpcUrl}, HTTP on ${httpUrl}`);
      await aborted(world.signal);
      await platform.drain();
    });
}

export function aborted(signal: AbortSignal): Promise<void> {
  if (signal.aborted) return Promise.resolve();
  return new Promise((resolve) => signal.addEventListener("abort", () => resolve(), { once: true }));
}
