/**
 * The only reader of the environment. What settings there are is in `config/options.ts`; here they become one typed,
 * frozen value that `main.ts` takes apart and hands out.
 */

import { inspect } from "node:util";
import { isGroup, printable } from "./config/describe.ts";
import type { Settings } from "./config/options.ts";
import { ConfigError } from "./config/problem.ts";
import { readSettings, type Variables } from "./config/read.ts";
import { brokenRules } from "./config/rules.ts";

/** PEM files of a listening port. */
export interface ServerTls {
  readonly certFile: string;
  readonly keyFile: string;
}

/** With `clientCaFile`, callers must show a certificate signed by it. */
export interface MutualTls extends ServerTls {
  readonly clientCaFile: string | undefined;
}

/**
 * Every setting, valid and consistent. Durations are in the unit their name ends with, sizes in bytes. Printing it or
 * any group of it (`JSON.stringify`, `util.inspect`, a logger) leaves secrets out; the properties themselves hold them.
 */
export type Config = Omit<Settings, "grpc" | "http" | "redis" | "notificationLimits"> & {
  /** `tls` undefined: plain text. */
  readonly grpc: Omit<Settings["grpc"], "tls"> & { readonly tls: MutualTls | undefined };
  /** `tls` undefined: plain text, HTTP/1.1 and h2c. */
  readonly http: Omit<Settings["http"], "tls"> & { readonly tls: ServerTls | undefined };
  /** `url` is composed from host, port and password where they were given; undefined only in development. */
  readonly redis: Pick<Settings["redis"], "url" | "commandTimeoutMs">;
  /** With the policy of each limit, its own or that of all. */
  readonly notificationLimits: Omit<LimitSettings, "onRedisDown" | "onRedisDownOf"> & {
    readonly onRedisDown: Readonly<Record<keyof LimitSettings["onRedisDownOf"], LimitSettings["onRedisDown"]>>;
  };
};

type LimitSettings = Settings["notificationLimits"];

/**
 * Reads the configuration. Names, defaults and their reasons: deploy/CONFIGURATION.md.
 *
 * @throws {ConfigError} with every problem at once: values that cannot be read, required ones missing, names almost
 *   right, settings that contradict each other, and secrets that are not secret outside development. Nothing else.
 */
export function readConfig(env: Variables): Config {
  const { settings, problems, failed } = readSettings(env);
  const all = [...problems, ...brokenRules(settings, failed)];
  if (all.length > 0) throw new ConfigError(all);
  const { tls } = settings.grpc;
  return sealed(
    {
      ...settings,
      grpc: { ...settings.grpc, tls: withKey(tls, { clientCaFile: tls.clientCaFile }) },
      http: { ...settings.http, tls: withKey(settings.http.tls, {}) },
      redis: {
        url: redisUrl(settings.redis),
        commandTimeoutMs: settings.redis.commandTimeoutMs,
      },
      notificationLimits: withPolicies(settings.notificationLimits),
    },
    "",
  );
}

function withKey<T extends object>(
  tls: Record<keyof ServerTls, string | undefined>,
  more: T,
): (ServerTls & T) | undefined {
  const { certFile, keyFile } = tls;
  return certFile === undefined || keyFile === undefined ? undefined : { certFile, keyFile, ...more };
}

function withPolicies({ onRedisDown: all, onRedisDownOf, ...limits }: LimitSettings): Config["notificationLimits"] {
  const { user = all, tenant = all, global = all } = onRedisDownOf;
  return { ...limits, onRedisDown: { user, tenant, global } };
}

function redisUrl({ url, host, port, password }: Settings["redis"]): string | undefined {
  if (url === undefined && host === undefined) return undefined;
  const result = new URL(url ?? `redis://${host}:${port}`);
  if (result.password === "" && password !== undefined) result.password = encodeURIComponent(password);
  return url !== undefined && password === undefined ? url : result.href;
}

/** Freezes it and makes every group print itself without secrets, so that logging a part is as safe as the whole. */
function sealed<T extends object>(group: T, path: string): T {
  for (const [key, child] of Object.entries(group))
    if (isGroup(child)) sealed(child, path === "" ? key : `${path}.${key}`);
  const print = () => printable(group, path);
  Object.defineProperty(group, "toJSON", { value: print });
  Object.defineProperty(group, inspect.custom, { value: print });
  return Object.freeze(group);
}
