import { afterAll, inject } from "vitest";
import { servicesOn, type TestServices } from "./fresh-services.ts";

export type { TestServices } from "./fresh-services.ts";

/**
 * Services for a test file, removed after its last test. Call it at the top of the file or of a `describe`:
 *
 *     const services = await testServices();
 */
export async function testServices(): Promise<TestServices> {
  const services = await freshServices();
  afterAll(() => services[Symbol.asyncDispose]());
  return services;
}

/** The same within one test: `await using services = await freshServices()`. */
export function freshServices(): Promise<TestServices & AsyncDisposable> {
  return servicesOn({
    databaseUrl: inject("databaseUrl"),
    natsUrl: inject("natsUrl"),
    redisUrl: inject("redisUrl"),
    templateDatabase: inject("templateDatabase"),
  });
}
