import { type ConsumerAPI, connect } from "nats";
import postgres, { type Sql } from "postgres";
import { AdminService, Scope } from "#gen/posthorn/v1/admin_service_pb.ts";
import { ALL_SHARDS, ingestStream, LANES, routeConsumer } from "#src/pipeline/flow.ts";
import type { TestServices } from "../../support/fresh-services.ts";
import { withoutCap } from "../../support/without-cap.ts";
import { labFolder } from "./channels.ts";
import { connectTo } from "./connection.ts";
import { type FaultNode, faultNode, OPERATOR_KEY, type Settings } from "./node.ts";
import { shortenWaits } from "./short-waits.ts";

/**
 * A tenant with a key that may do everything in it, and the nodes that serve it. `channels`: the folder of the lab's outside
 * channels, where they have these.
 */
export type Site<N = FaultNode> = { nodes: readonly N[]; tenantId: string; apiKey: string; channels?: string };

/** As much of a node as clients need. */
export type Address = Pick<FaultNode, "name" | "address">;

/** What a fault works with. Everything it starts ends with it. */
export type Lab = AsyncDisposable & {
  readonly services: TestServices;
  /** Sees all tenants. */
  readonly sql: Sql;
  readonly say: (line: string) => void;
  /** Ends with the lab, the last one first. */
  use<T extends AsyncDisposable | Disposable>(thing: T): T;
  defer(end: () => void | Promise<void>): void;
  /**
   * Nodes that run, with a tenant and the lab's outside channels. What they wait for is shortened (short-waits.ts). As
   * shipped: by the command that users start them with, and so without channels.
   */
  site(names: readonly string[], settings?: Settings, options?: { asShipped: boolean }): Promise<Site>;
  /**
   * Lets JetStream give out again what a worker has been silent about for this long, instead of half a minute: what is
   * waited for is the same, only sooner. Nodes of a site bring that back to what it is as they start, and then it is
   * shortened again. Holds until the streams are created anew.
   */
  shortenAckWait(ms: number): Promise<void>;
  /** How long JetStream waits for any worker now. */
  ackWaitMs(): Promise<number>;
};

export type FaultOptions = {
  seed: number;
  /** 1: as many as the fault is about; 0.1: a tenth. */
  scale: number;
};

/** Figures for the table: counts, and under names that end with `Ms` times. */
export type Facts = Record<string, number | readonly number[] | string>;

/** One way in which things go wrong, and what must hold all the same. */
export type FaultTest = {
  name: string;
  about: string;
  /** It counts what its process holds, or moves that one's clocks: nothing may run beside it there. */
  alone?: true;
  /** What it takes and is not to be had here, if anything: then it is skipped. */
  lacks?(): Promise<string | undefined>;
  /** Throws when a promise is broken. */
  run(lab: Lab, options: FaultOptions): Promise<Facts>;
};

const STEP_MS = 1500;
/** Longer than a hand-over takes here, shorter than any pause of a process. */
const LEASE_MS = 2500;

export function openLab(services: TestServices, say: (line: string) => void): Lab {
  const stack = new AsyncDisposableStack();
  const sql = postgres(services.databaseUrl, { max: 4, onnotice: () => undefined });
  stack.defer(() => sql.end({ timeout: 5 }));
  let ackWaitMs: number | undefined;
  const shortenAgain = async () => {
    if (ackWaitMs !== undefined) await shortenAckWait(services, ackWaitMs);
  };
  return {
    services,
    sql,
    say,
    use: (thing) => stack.use(thing),
    defer: (end) => stack.defer(end),
    async site(names, settings = {}, { asShipped } = { asShipped: false }) {
      const folder = asShipped ? undefined : stack.use(await labFolder()).folder;
      const own = folder === undefined ? settings : { ...settings, LAB_CHANNELS: folder };
      const nodes: FaultNode[] = [];
      for (const name of names) nodes.push(stack.use(await faultNode(name, services, own, shortenAgain)));
      await Promise.all(nodes.map((node) => node.start()));
      await shortenWaits(sql, { step: STEP_MS, lease: LEASE_MS });
      const tenant = await newTenant(nodes[0]?.address ?? "");
      const site = { nodes, ...(await withoutCap(services.databaseUrl, tenant)) };
      return folder === undefined ? site : { ...site, channels: folder };
    },
    async shortenAckWait(ms) {
      ackWaitMs = ms;
      await shortenAgain();
    },
    ackWaitMs: () => longestAckWaitMs(services),
    [Symbol.asyncDispose]: () => stack.disposeAsync(),
  };
}

/** Nothing is broken yet: what it takes is a matter of the machine. */
const SETUP_MS = 60_000;

async function newTenant(address: string): Promise<{ tenantId: string; apiKey: string }> {
  using operator = connectTo(address, OPERATOR_KEY);
  const { tenant } = await operator.call(AdminService.method.createTenant, { displayName: "Faults" }, SETUP_MS);
  const tenantId = tenant?.id ?? "";
  using within = connectTo(address, OPERATOR_KEY, { "posthorn-tenant": tenantId });
  const scopes = Object.values(Scope).filter((scope) => scope !== Scope.UNSPECIFIED);
  const { secret } = await within.call(
    AdminService.method.createApiKey,
    { displayName: "Everything", scopes },
    SETUP_MS,
  );
  return { tenantId, apiKey: secret };
}

async function shortenAckWait(services: TestServices, ms: number): Promise<void> {
  await eachConsumer(services, async (consumers, stream, name) => {
    await consumers.update(stream, name, { ack_wait: ms * NANOS });
  });
}

async function longestAckWaitMs(services: TestServices): Promise<number> {
  let longest = 0;
  await eachConsumer(services, async (consumers, stream, name) => {
    const { config } = await consumers.info(stream, name);
    longest = Math.max(longest, (config.ack_wait ?? 0) / NANOS);
  });
  return longest;
}

const NANOS = 1_000_000;

async function eachConsumer(
  { natsUrl, namespace }: TestServices,
  visit: (consumers: ConsumerAPI, stream: string, name: string) => Promise<void>,
): Promise<void> {
  const nats = await connect({ servers: natsUrl });
  try {
    const { consumers } = await nats.jetstreamManager();
    for (const { name } of LANES)
      for (let shard = 0; shard < ALL_SHARDS; shard++)
        await visit(consumers, ingestStream(namespace, name), routeConsumer(shard));
  } finally {
    await nats.close();
  }
}
