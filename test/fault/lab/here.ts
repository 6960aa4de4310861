import { readConfig } from "#src/config.ts";
import { type PlatformOptions, startPlatform } from "#src/main.ts";
import type { TestServices } from "../../support/fresh-services.ts";
import { withoutCap } from "../../support/without-cap.ts";
import type { Address, Site } from "./lab.ts";
import { SETTINGS, type Settings } from "./node.ts";

/** A node within this process: for what reaches into it, by its clock, its parts or what it leaves behind. */
export async function nodeHere(
  name: string,
  services: TestServices,
  { settings = {}, ...options }: { settings?: Settings } & Pick<PlatformOptions, "clock" | "between"> = {},
): Promise<Address & AsyncDisposable & { bootstrap(): Promise<Omit<Site, "nodes">> }> {
  const config = readConfig({
    ...SETTINGS,
    POSTHORN_LOG_LEVEL: "silent",
    POSTHORN_INSTANCE_ID: name,
    POSTHORN_GRPC_PORT: "0",
    POSTHORN_HTTP_PORT: "0",
    POSTHORN_DATABASE_URL: services.databaseUrl,
    POSTHORN_NATS_URL: services.natsUrl,
    POSTHORN_REDIS_URL: services.redisUrl,
    POSTHORN_NAMESPACE: services.namespace,
    ...settings,
  });
  const platform = await startPlatform(config, options);
  return {
    name,
    address: platform.grpcUrl,
    bootstrap: async () => withoutCap(services.databaseUrl, await platform.bootstrap("Faults")),
    [Symbol.asyncDispose]: () => platform[Symbol.asyncDispose](),
  };
}
