// The platform as a process of its own, for attacks: its configuration is its environment. It says where it listens, and
// when asked, what it holds after the garbage is gone.
import { setImmediate as turn } from "node:timers/promises";
import { readConfig } from "#src/config.ts";
import { startPlatform } from "#src/main.ts";
import { withoutCap } from "../support/without-cap.ts";
import type { Held, Started } from "./target.ts";

const platform = await startPlatform(readConfig(process.env));
const { POSTHORN_DATABASE_URL: databaseUrl = "" } = process.env;
const { tenantId, apiKey } = await withoutCap(databaseUrl, await platform.bootstrap("Attacked"));
process.on("disconnect", () => process.exit());
process.on("SIGTERM", () => void platform[Symbol.asyncDispose]().then(() => process.exit()));

const started: Started = { grpcUrl: platform.grpcUrl, httpUrl: platform.httpUrl, tenantId, apiKey };
process.send?.(started);
process.on("message", async () => {
  for (let round = 0; round < 3; round++) {
    globalThis.gc?.();
    await turn();
  }
  const { rss, heapUsed, external } = process.memoryUsage();
  const kinds = process.getActiveResourcesInfo();
  const held: Held = {
    rss,
    memory: heapUsed + external,
    sockets: kinds.filter((kind) => kind === "TCPSocketWrap").length,
    others: kinds.filter((kind) => kind !== "TCPSocketWrap" && kind !== "Timeout" && kind !== "Immediate").length,
  };
  process.send?.(held);
});
