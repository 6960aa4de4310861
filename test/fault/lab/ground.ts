import { randomBytes } from "node:crypto";
import type { TestServices } from "../../support/fresh-services.ts";
import { type Lab, openLab, type Site } from "./lab.ts";
import type { Settings } from "./node.ts";
import { startProxy, type TcpProxy } from "./proxy.ts";
import { type Servers, type ServersOptions, startServers } from "./servers.ts";

/** Servers of a fault's own, which it may do anything to, and the network between them and the nodes. */
export type Ground = {
  readonly servers: Servers;
  /** What the nodes reach the servers through. */
  readonly network: { readonly postgres: TcpProxy; readonly nats: TcpProxy; readonly redis: TcpProxy };
  /** On these servers, to which it has ways of its own. */
  readonly lab: Lab;
  site(names: readonly string[], settings?: Settings): Promise<Site>;
};

export async function breakableGround(outer: Lab, options: ServersOptions = {}): Promise<Ground> {
  const servers = outer.use(await startServers({ log: outer.say, ...options }));
  const services: TestServices = {
    databaseUrl: servers.postgres.url,
    natsUrl: servers.nats.url,
    redisUrl: servers.redis.url,
    namespace: `f${randomBytes(4).toString("hex")}`,
  };
  const network = {
    postgres: outer.use(await startProxy(servers.postgres.url)),
    nats: outer.use(await startProxy(servers.nats.url)),
    redis: outer.use(await startProxy(servers.redis.url)),
  };
  const lab = outer.use(openLab(services, outer.say));
  return {
    servers,
    network,
    lab,
    site: (names, settings = {}) =>
      lab.site(names, {
        POSTHORN_DATABASE_URL: network.postgres.url,
        POSTHORN_NATS_URL: network.nats.url,
        POSTHORN_REDIS_URL: network.redis.url,
        ...settings,
      }),
  };
}
