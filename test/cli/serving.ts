import { type LocalState, readState } from "#src/cli/state.ts";
import type { World } from "#src/cli/world.ts";
import type { TestServices } from "../support/services.ts";
import { type TestWorld, testWorld } from "./world.ts";

/** `npm start` in this process, on the test's services; disposing is Ctrl-C. */
export type Serving = AsyncDisposable & { world: TestWorld; state: LocalState; said: string[] };

/** Starts it and waits until it has said that it runs. Without ports in `env`, free ones. */
export async function startServing(
  services: TestServices,
  {
    env = { POSTHORN_GRPC_PORT: "0", POSTHORN_HTTP_PORT: "0" },
    dataDir,
  }: { env?: World["env"]; dataDir?: string } = {},
): Promise<Serving> {
  const stop = new AbortController();
  const running = Promise.withResolvers<void>();
  const said: string[] = [];
  const world = testWorld({ ...(dataDir === undefined ? {} : { dataDir }) });
  const ended = world.run("serve --dev --json", stop.signal, {
    env: {
      POSTHORN_DATABASE_URL: services.databaseUrl,
      POSTHORN_NATS_URL: services.natsUrl,
      POSTHORN_REDIS_URL: services.redisUrl,
      POSTHORN_NAMESPACE: services.namespace,
      POSTHORN_LOG_LEVEL: "warn",
      ...env,
    },
    out: () => running.resolve(),
    err: (line) => void said.push(line),
  });
  await Promise.race([
    running.promise,
    ended.then(({ exitCode, err }) => {
      throw new Error(`it ended with ${exitCode}: ${err.join("\n")}`);
    }),
  ]);
  const state = readState(world.dataDir);
  if (state === undefined) throw new Error("it wrote no state");
  return {
    world,
    state,
    said,
    async [Symbol.asyncDispose]() {
      stop.abort();
      const { exitCode, err } = await ended;
      if (dataDir === undefined) world[Symbol.dispose]();
      if (exitCode !== 0) throw new Error(`it ended with ${exitCode}: ${err.join("\n")}`);
    },
  };
}
