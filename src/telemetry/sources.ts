import type { Metrics } from "./metrics.ts";

/** Answers whether a server answers. A rejection is a no. */
export type Check = () => boolean | Promise<boolean>;

/** The connections to the database as they are used at this moment. */
export type Pools = () => readonly { name: string; size: number; inUse: number; waiting: number }[];

type Watched = Pick<Metrics, "dependencyUp" | "poolSize" | "poolInUse" | "poolWaiting">;

const INTERVAL_MS = 5_000;
const PATIENCE_MS = 2_000;

/** Asks the dependencies every `intervalMs` until disposed, and the pools whenever their metrics are read. */
export function watchSources(
  metrics: Watched,
  dependencies: Readonly<Record<string, Check>>,
  pools: Pools,
  intervalMs = INTERVAL_MS,
): Disposable {
  metrics.poolSize.read(() => {
    for (const { name, size } of pools()) metrics.poolSize.set({ pool: name }, size);
  });
  metrics.poolInUse.read(() => {
    for (const { name, inUse } of pools()) metrics.poolInUse.set({ pool: name }, inUse);
  });
  metrics.poolWaiting.read(() => {
    for (const { name, waiting } of pools()) metrics.poolWaiting.set({ pool: name }, waiting);
  });
  const asking = new Set<string>();
  const look = () => {
    for (const [dependency, check] of Object.entries(dependencies)) {
      if (asking.has(dependency)) continue;
      asking.add(dependency);
      void inTime(check).then((up) => {
        asking.delete(dependency);
        metrics.dependencyUp.set({ dependency }, up ? 1 : 0);
      });
    }
  };
  look();
  const timer = setInterval(look, intervalMs).unref();
  return { [Symbol.dispose]: () => clearInterval(timer) };
}

/** What does not answer in time counts as down. */
async function inTime(check: Check): Promise<boolean> {
  let timer: NodeJS.Timeout | undefined;
  const patience = new Promise<boolean>((resolve) => {
    timer = setTimeout(resolve, PATIENCE_MS, false).unref();
  });
  try {
    return await Promise.race([check(), patience]);
  } catch {
    return false;
  } finally {
    clearTimeout(timer);
  }
}
