// The platform as a process of its own, for benchmarks. Its configuration is its environment; it answers the first line
// with where it listens and with a tenant and key of its own. {"do":"profile"} begins a CPU profile, {"do":"keep","file"}
// ends and writes it: so only the measured time is in it, which --cpu-prof cannot do.
import { writeFile } from "node:fs/promises";
import { Session } from "node:inspector/promises";
import { readConfig } from "#src/config.ts";
import { startPlatform } from "#src/main.ts";
import { serveJob, tell } from "./child-side.ts";

export type Command = { do: "profile" } | { do: "keep"; file: string };

serveJob(async (_, closing) => {
  const platform = await startPlatform(readConfig(process.env));
  closing(async () => platform[Symbol.asyncDispose]());
  const { tenantId, apiKey } = await platform.bootstrap("Benchmark");
  tell("ready", { grpcUrl: platform.grpcUrl, httpUrl: platform.httpUrl, tenantId, apiKey });

  const inspector = new Session();
  return async (message) => {
    const command = message as Command;
    if (command.do === "profile") {
      inspector.connect();
      await inspector.post("Profiler.enable");
      await inspector.post("Profiler.start");
    } else {
      const { profile } = await inspector.post("Profiler.stop");
      inspector.disconnect();
      await writeFile(command.file, JSON.stringify(profile));
      tell("kept");
    }
  };
});
