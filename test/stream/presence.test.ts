import { expect, onTestFinished, test, vi } from "vitest";
import { connectCache } from "#src/cache/redis.ts";
import { openPresence } from "#src/stream/presence.ts";
import { createLogger } from "#src/telemetry/logger.ts";
import { testServices } from "../support/services.ts";

const { redisUrl, namespace } = await testServices();
const log = createLogger({ serviceName: "test", logLevel: "silent", logFormat: "json" });

test("of streams that open or end in one turn Redis is told in one go, and before anybody asks", async () => {
  const cache = await connectCache({ url: redisUrl, namespace, commandTimeoutMs: 10_000 }, log);
  onTestFinished(() => cache[Symbol.asyncDispose]());
  const presence = openPresence(cache, () => new Date(), 60_000);
  const pipelines = vi.spyOn(cache.redis, "pipeline");
  const users = Array.from({ length: 100 }, (_, n) => `user-${n}`);
  const areOnline = async () => new Set((await presence.read("tenant", users)).map(({ online }) => online));

  for (const user of users) presence.arrive("tenant", user, "phone", "a");
  expect(await areOnline()).toEqual(new Set([true]));
  for (const user of users) presence.leave("tenant", user, "phone", "a");
  expect(await areOnline()).toEqual(new Set([false]));
  expect(pipelines).toHaveBeenCalledTimes(4);

  // Also when nobody asks.
  for (const user of users) presence.arrive("tenant", user, "phone", "b");
  const sent = vi.spyOn(cache.redis, "sendCommand");
  await new Promise((resolve) => setImmediate(() => setImmediate(resolve)));
  expect(sent).toHaveBeenCalledTimes(200);
  expect(await areOnline()).toEqual(new Set([true]));
});
