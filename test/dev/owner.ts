// A process that owns local services and does nothing else, for tests that kill it: prints their addresses as JSON.
import { type StartServicesOptions, startServices } from "#src/dev/services.ts";

const [dataDir, keep, database] = process.argv.slice(2);
const options: StartServicesOptions = {
  dataDir: dataDir ?? "",
  keep: keep === "keep",
  durable: false,
  log: (line) => process.stderr.write(`${line}\n`),
  ...(database ? { urls: { database } } : {}),
};
const { databaseUrl, natsUrl, redisUrl } = await startServices(options);
process.stdout.write(`${JSON.stringify({ databaseUrl, natsUrl, redisUrl })}\n`);
setInterval(() => undefined, 1 << 30);
