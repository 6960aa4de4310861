import { expect, test } from "vitest";
import { circuit } from "#src/cache/circuit.ts";
import { connectCache } from "#src/cache/redis.ts";
import { createLogger } from "#src/telemetry/logger.ts";
import { startProxy } from "../fault/lab/proxy.ts";
import { testServices } from "../support/services.ts";
import { until } from "../support/until.ts";

const { redisUrl, namespace } = await testServices();
const log = createLogger({ serviceName: "test", logLevel: "silent", logFormat: "json" });

test("of those who ask a silent Redis one after the other, only the first waits, and all are answered when it speaks", async () => {
  await using proxy = await startProxy(redisUrl);
  await using cache = await connectCache({ url: proxy.url, namespace, commandTimeoutMs: 1000 }, log);
  const askers = [1, 2, 3].map(() => circuit({ up: () => cache.up(), clock: () => performance.now() }));
  proxy.silence();
  const waits: number[] = [];
  for (const asker of askers) {
    const began = performance.now();
    expect(await asker.attempt(() => cache.redis.ping())).toBeUndefined();
    waits.push(performance.now() - began);
  }
  expect(waits[0]).toBeGreaterThan(900);
  for (const wait of waits.slice(1)) expect(wait).toBeLessThan(800);
  await proxy.heal();
  for (const asker of askers) {
    await until(
      () => asker.attempt(() => cache.redis.ping()),
      (answer) => answer === "PONG",
    );
  }
});

test("a Redis that has answered is not away because this process did not look for a while", async () => {
  await using cache = await connectCache({ url: redisUrl, namespace, commandTimeoutMs: 50 }, log);
  const asked = [cache.redis.ping(), cache.redis.pipeline().ping().exec()];
  const until = performance.now() + 150;
  while (performance.now() < until);
  expect(await Promise.all(asked)).toEqual(["PONG", [[null, "PONG"]]]);
  expect(cache.up()).toBe(true);
});
