// The platform as a process of its own, for benchmarks. Its configuration is its environment; it answers the first line
// with where it listens and with a tenant and key of its own. Further lines are commands, each answered with an event of
// its name: `profile` begins a CPU profile and `keep` ends and writes it, so that only the measured time is in it, which
// --cpu-prof cannot do; `work` begins a worker in this process and `rest` ends it, so that work can be left waiting.
import { writeFile } from "node:fs/promises";
import { Session } from "node:inspector/promises";
import { readConfig } from "#src/config.ts";
import { type Platform, startPlatform } from "#src/main.ts";
import { withoutCap } from "../support/without-cap.ts";
import { collectGarbage, serveJob, tell } from "./child-side.ts";

export type Command = { do: "profile" | "tenant" | "work" | "rest" | "settle" } | { do: "keep"; file: string };

serveJob(async (_, closing) => {
  const platform = await startPlatform(readConfig(process.env));
  closing(async () => platform[Symbol.asyncDispose]());
  let worker: Platform | undefined;
  closing(async () => worker?.[Symbol.asyncDispose]());
  // Nothing is held back: the program is measured and not its limits.
  const newTenant = async (name: string) =>
    withoutCap(process.env.POSTHORN_DATABASE_URL ?? "", await platform.bootstrap(name));
  const { tenantId, apiKey } = await newTenant("Benchmark");
  tell("ready", { grpcUrl: platform.grpcUrl, httpUrl: platform.httpUrl, tenantId, apiKey });

  const inspector = new Session();
  const obey = async (command: Command): Promise<object | undefined> => {
    switch (command.do) {
      case "profile":
        inspector.connect();
        await inspector.post("Profiler.enable");
        await inspector.post("Profiler.start");
        return;
      case "keep": {
        const { profile } = await inspector.post("Profiler.stop");
        inspector.disconnect();
        await writeFile(command.file, JSON.stringify(profile));
        return;
      }
      case "tenant":
        return await newTenant("Another");
      case "work":
        // It does not know of the streams in this process, and would take what they hold for its work's.
        worker = await startPlatform(
          readConfig({ ...process.env, POSTHORN_ROLES: "worker", POSTHORN_MEMORY_THRESHOLD_MB: "2048" }),
        );
        return;
      case "rest":
        await worker?.[Symbol.asyncDispose]();
        worker = undefined;
        return;
      case "settle":
        return collectGarbage();
    }
  };
  return async (message) => {
    const command = message as Command;
    tell(command.do, await obey(command));
  };
});
