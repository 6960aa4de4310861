import { readFile } from "node:fs/promises";
import {
  type ConnectionOptions,
  connect,
  credsAuthenticator,
  Events,
  type JetStreamClient,
  type JetStreamManager,
  type NatsConnection,
} from "nats";
import type { Logger } from "#src/telemetry/logger.ts";

export type BrokerConfig = {
  url: string;
  /** Begins every stream's name and every subject, so that several installations can share one NATS. */
  namespace: string;
  /** Replicas of the streams: 1 on a single server, 3 in a cluster. */
  replicas: number;
  user?: string | undefined;
  password?: string | undefined;
  token?: string | undefined;
  /** A `.creds` file: JWT and nkey of an operator-mode cluster. */
  credentialsFile?: string | undefined;
  tls?: { caFile?: string | undefined; certFile?: string | undefined; keyFile?: string | undefined };
};

/** The way to NATS. Reconnects for ever; `up` tells whether it is connected now. */
export type Broker = AsyncDisposable & {
  readonly nats: NatsConnection;
  readonly js: JetStreamClient;
  readonly jsm: JetStreamManager;
  readonly namespace: string;
  readonly replicas: number;
  up(): boolean;
  /** Called whenever the connection is lost, and again when it is back: what was published meanwhile may be lost. */
  onInterruption(handler: (state: "lost" | "back") => void): Disposable;
};

export async function connectBroker(config: BrokerConfig, log: Logger): Promise<Broker> {
  const tls = Object.fromEntries(Object.entries(config.tls ?? {}).filter(([, file]) => file !== undefined));
  const options: ConnectionOptions = {
    servers: config.url.split(","),
    name: "posthorn",
    // The client's own defaults give up after ten tries and notice a dead peer only after four minutes.
    maxReconnectAttempts: -1,
    reconnectTimeWait: 250,
    reconnectJitter: 250,
    // A peer that vanished is noticed after four to six seconds; until then caches may miss what others changed.
    pingInterval: 2000,
    maxPingOut: 2,
    timeout: 5000,
    // Two stacks for each message published, in case it is not answered: that it was not says as much.
    noAsyncTraces: true,
    ...(config.user === undefined ? {} : { user: config.user, pass: config.password ?? "" }),
    ...(config.token === undefined ? {} : { token: config.token }),
    ...(config.credentialsFile === undefined
      ? {}
      : { authenticator: credsAuthenticator(await readFile(config.credentialsFile)) }),
    ...(Object.values(tls).length === 0 ? {} : { tls }),
  };
  const nats = await connect(options);
  let up = true;
  const handlers = new Set<(state: "lost" | "back") => void>();
  const tell = (state: "lost" | "back") => {
    up = state === "back";
    for (const handler of handlers) handler(state);
  };
  void (async () => {
    for await (const status of nats.status()) {
      if (status.type === Events.Disconnect) {
        log.warn("lost the connection to NATS");
        tell("lost");
      } else if (status.type === Events.Reconnect) {
        log.info("connected to NATS again");
        tell("back");
      }
    }
  })();
  const js = nats.jetstream({ timeout: 5000 });
  const jsm = await nats.jetstreamManager({ timeout: 5000, checkAPI: false });
  return {
    nats,
    js,
    jsm,
    namespace: config.namespace,
    replicas: config.replicas,
    up: () => up && !nats.isClosed(),
    onInterruption(handler) {
      handlers.add(handler);
      return { [Symbol.dispose]: () => void handlers.delete(handler) };
    },
    async [Symbol.asyncDispose]() {
      // A drain waits for a server that may be gone; a close does not.
      const drained = nats.drain().catch(() => undefined);
      await Promise.race([drained, new Promise((done) => setTimeout(done, 1000).unref())]);
      if (!nats.isClosed()) await nats.close();
    },
  };
}
