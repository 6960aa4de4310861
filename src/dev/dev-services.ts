// npm run dev:services: only the local servers, with their addresses printed in a form that a shell can read.
import { join } from "node:path";
import { startServices } from "./services.ts";

const stop = new AbortController();
process.once("SIGINT", () => stop.abort());
process.once("SIGTERM", () => stop.abort());

await using services = await startServices({
  dataDir: join(import.meta.dirname, "../../.data"),
  log: (line) => process.stderr.write(`${line}\n`),
  signal: stop.signal,
}).catch((error: unknown) => {
  console.error(error instanceof Error ? error.message : error);
  process.exit(1);
});
process.stdout.write(`POSTHORN_DATABASE_URL=${services.databaseUrl}
POSTHORN_NATS_URL=${services.natsUrl}
POSTHORN_REDIS_URL=${services.redisUrl}
`);
const { postgres, nats, redis } = services.versions;
process.stderr.write(`Postgres ${postgres}, NATS ${nats}, Redis ${redis} are running; Ctrl-C stops them\n`);

await new Promise<void>((resolve) => {
  const alive = setInterval(() => undefined, 1 << 30);
  stop.signal.addEventListener("abort", () => {
    clearInterval(alive);
    resolve();
  });
});
