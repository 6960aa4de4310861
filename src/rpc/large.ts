import type { Exchange } from "./exchange.ts";
import { takingTurns } from "./turns.ts";

/** It takes a millisecond or so to make objects of it: a hundred notifications. Of a body over HTTP that is compressed, it counts as it came. */
const LARGE_BYTES = 16_384;

/** At module level because what is shared, the event loop, is the process's only one. */
const turns = takingTurns(1);

/**
 * Ask before a message is decoded, and wait for what is returned, if anything: of large ones that came at once each has a
 * turn of the event loop, the tenants' in turn.
 */
export function beforeDecoding(bytes: Uint8Array, exchange: Exchange): Promise<void> | undefined {
  if (bytes.byteLength < LARGE_BYTES) return undefined;
  return new Promise((resolve) => turns(exchange.admitted ? exchange.tenantId : "", resolve));
}
