/** Every setting there is, in the shape the program reads them. A new one is an entry here and nothing else. */

import {
  encryption,
  environment,
  instanceId,
  namespace,
  processRoles,
  retention,
  shutdown,
  telemetry,
} from "./deployment.ts";
import { apiLimits, notificationLimits } from "./limits.ts";
import type { Option, OptionGroup, ValuesOf } from "./option.ts";
import { nats, postgres, redis } from "./stores.ts";
import { auth, deadlines, grpc, http } from "./transports.ts";
import { accept, channels, giveWay, inbox, memory, reconcile, route, schedule, stream } from "./work.ts";

export const options = {
  environment,
  roles: processRoles,
  namespace,
  instanceId,
  postgres,
  nats,
  redis,
  grpc,
  http,
  deadlines,
  auth,
  encryption,
  apiLimits,
  notificationLimits,
  accept,
  route,
  giveWay,
  memory,
  reconcile,
  schedule,
  stream,
  inbox,
  channels,
  retention,
  telemetry,
  shutdown,
} as const;

/** The settings as read, before `readConfig` puts composed ones together. */
export type Settings = ValuesOf<typeof options>;

export interface Listed {
  /** Where it is in the configuration: `grpc.tls.certFile`. */
  readonly path: string;
  readonly option: Option<unknown>;
}

/** All options in their order. */
export const listedOptions: readonly Listed[] = flatten(options, "");

export function isOption(node: Option<unknown> | OptionGroup): node is Option<unknown> {
  return node.tag === "option";
}

function flatten(group: OptionGroup, prefix: string): Listed[] {
  return Object.entries(group).flatMap(([key, node]) =>
    isOption(node) ? [{ path: prefix + key, option: node }] : flatten(node, `${prefix}${key}.`),
  );
}
