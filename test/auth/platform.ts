import { randomBytes } from "node:crypto";
import { onTestFinished } from "vitest";
import { type AuthConfig, type Authenticator, authenticator } from "#src/auth/authenticator.ts";
import { keySets } from "#src/auth/jwks.ts";
import { type FetchKeySet, keySetFetcher } from "#src/auth/jwks-fetch.ts";
import { sealer } from "#src/auth/seal.ts";
import { type Broker, connectBroker } from "#src/broker/broker.ts";
import { type Invalidations, startInvalidations } from "#src/broker/invalidations.ts";
import { newIds } from "#src/ids.ts";
import type { Principal, Service } from "#src/rpc/call.ts";
import { type AdminServiceDeps, adminService } from "#src/services/admin-service.ts";
import { pageTokens } from "#src/store/page-token.ts";
import { openStore, type Store } from "#src/store/store.ts";
import { createLogger } from "#src/telemetry/logger.ts";
import { createTenantWithKey } from "#src/tenants/tenants.ts";
import { fakeCall } from "../support/call.ts";
import type { TestServices } from "../support/services.ts";

export const OPERATOR_KEY = "operator-key-of-the-tests-0123456789";
export const MASTER_KEY = new Uint8Array(32).fill(7);
const log = createLogger({ serviceName: "test", logLevel: "silent", logFormat: "json" });

/** One server process as far as credentials go: its own connections, caches and subscription. */
export type Node = AsyncDisposable & {
  auth: Authenticator;
  admin: Service;
  deps: AdminServiceDeps;
  store: Store;
  broker: Broker;
  invalidations: Invalidations;
  /** Statements that authentication has run. */
  lookups(): number;
  /** Who the credential belongs to. */
  who(credential: string, tenantHeader?: string): Promise<Principal>;
};

export type NodeOptions = {
  /** What the node takes for now; default the real time. */
  now?: () => number;
  /** Milliseconds of the caches' clock; default stands still, so that only invalidations bring news. */
  ticks?: () => number;
  config?: Partial<AuthConfig>;
  fetchKeySet?: FetchKeySet;
  masterKey?: Uint8Array;
  previousKeys?: Uint8Array[];
};

export async function startNode(services: TestServices, options: NodeOptions = {}): Promise<Node> {
  const { now = Date.now, ticks = () => 0, config, masterKey = MASTER_KEY, previousKeys = [] } = options;
  await using stack = new AsyncDisposableStack();
  const store = stack.use(
    openStore({
      url: services.databaseUrl,
      hotPoolSize: 2,
      poolSize: 2,
      statementTimeoutMs: 10_000,
      lockTimeoutMs: 5_000,
      prepare: true,
    }),
  );
  const broker = stack.use(
    await connectBroker({ url: services.natsUrl, namespace: services.namespace, replicas: 1 }, log),
  );
  const invalidations = stack.use(startInvalidations(broker));
  // Subscribed for certain before a test publishes.
  await broker.nats.flush();
  const clock = () => new Date(now());
  const seal = sealer(masterKey, previousKeys, randomBytes);
  let lookups = 0;
  const counted: Pick<Store, "system" | "systemIsAway"> = {
    systemIsAway: store.systemIsAway,
    system(work) {
      lookups++;
      return store.system(work);
    },
  };
  const { fetchKeySet = keySetFetcher({ loopback: true }) } = options;
  const auth = stack.use(
    authenticator(
      { store: counted, invalidations, ticks, clock, sealer: seal, keySets: keySets({ fetchKeySet, ticks, log }) },
      { operatorKeys: [OPERATOR_KEY], jwtSecret: undefined, cacheTtlMs: 1000, clockSkewSeconds: 30, ...config },
    ),
  );
  const deps: AdminServiceDeps = {
    store,
    invalidations,
    pageTokens: pageTokens(Buffer.from("page tokens of the tests")),
    sealer: seal,
    clock,
    newId: newIds(clock),
    random: randomBytes,
    reach: { loopback: true },
  };
  const owned = stack.move();
  return {
    auth,
    admin: adminService(deps),
    deps,
    store,
    broker,
    invalidations,
    lookups: () => lookups,
    who: (credential, tenantHeader) => auth.authenticate(`Bearer ${credential}`, tenantHeader),
    [Symbol.asyncDispose]: () => owned.disposeAsync(),
  };
}

/** A node that ends with the test. */
export async function testNode(services: TestServices, options?: NodeOptions): Promise<Node> {
  const node = await startNode(services, options);
  onTestFinished(() => node[Symbol.asyncDispose]());
  return node;
}

/** A new tenant with a key that may do everything, and a call by that key. */
export async function newTenant(node: Node, name = "Tenant") {
  const { tenantId, apiKey } = await createTenantWithKey(node.deps, name);
  return { tenantId, apiKey, call: fakeCall({ tenantId }) };
}
