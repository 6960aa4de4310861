import { breathe } from "#src/breathe.ts";

/** It takes a millisecond or so to make objects of it: a hundred notifications. */
const LARGE_BYTES = 16_384;

/**
 * Ask before a message is decoded, and wait for what is returned, if anything: of large ones that came at once each has a
 * turn of the event loop.
 */
export function beforeDecoding(bytes: Uint8Array): Promise<void> | undefined {
  return bytes.byteLength < LARGE_BYTES ? undefined : breathe();
}
