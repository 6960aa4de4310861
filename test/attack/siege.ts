import { once } from "node:events";
import { Worker } from "node:worker_threads";
import { afterAll, expect } from "vitest";
import { testServices } from "../support/services.ts";
import { until } from "../support/until.ts";
import { onCores } from "./schedule.ts";
import { startTarget, type Target, type TargetOptions } from "./target.ts";

export type ProberJob = { pid: number; grpc: number; http: number; apiKey: string; ca: Buffer | undefined };
/** By what was asked. */
export type Probed = Record<string, { asked: number; slowestMs: number; failures: string[] }>;

export type Siege = {
  readonly target: Target;
  /**
   * Runs an attack. All the while both ports are asked for their health, and notifications are sent by somebody else:
   * every answer has to be good and come within a second. Afterwards calls, sockets and memory are what they were, before
   * this attack and before the first one of the file: what each leaves a little of is seen in the end.
   */
  during<T>(attack: () => Promise<T>): Promise<T>;
};

const AT_MOST_MS = 1_000;
/** So that every probe is asked several times. */
const AT_LEAST_MS = 500;

/** A target of the test file's own, and somebody who asks whether it is well. */
export async function besieged(options: TargetOptions = {}): Promise<Siege> {
  const target = await startTarget(await testServices(), options);
  const { pid, grpc, http, apiKey } = target;
  const workerData: ProberJob = { pid, grpc: grpc.port, http: http.port, apiKey, ca: grpc.tls };
  const prober = new Worker(new URL("prober-thread.ts", import.meta.url), { workerData });
  afterAll(async () => {
    await prober.terminate();
    await target[Symbol.asyncDispose]();
  });
  const answer = async (): Promise<Probed> => {
    const told = once(prober, "message");
    prober.postMessage("end");
    const [probed] = await told;
    return probed;
  };
  // Everything is compiled and connected before anything is measured.
  await answer();

  return {
    target,
    async during(attack) {
      const before = await target.held();
      const cpu = onCores(pid);
      prober.postMessage("begin");
      const atLeast = new Promise((resolve) => setTimeout(resolve, AT_LEAST_MS));
      const result = await attack();
      await atLeast;
      const probed = await answer();
      if (process.env.POSTHORN_TEST_LOG)
        console.log(JSON.stringify({ cpu: Math.round(onCores(pid) - cpu), probed, before, now: await target.held() }));
      for (const [name, { slowestMs, failures }] of Object.entries(probed)) {
        expect([name, failures]).toEqual([name, []]);
        // Send waits for Postgres too, which shares the cores.
        if (name !== "Send") expect(slowestMs, `milliseconds that ${name} took`).toBeLessThan(AT_MOST_MS);
      }
      expect(target.alive()).toBe(true);
      await until(target.openCalls, (open) => open <= 1, 20_000);
      await target.backTo(before);
      return result;
    },
  };
}
