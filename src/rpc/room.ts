import type { EventEmitter } from "node:events";

/** Waits until what was written has been read. False: nothing was read for `stallMs`. */
export function room(stream: EventEmitter & { readonly destroyed: boolean }, stallMs: number): Promise<boolean> {
  return new Promise((resolve) => {
    const settle = (read: boolean) => () => {
      clearTimeout(timer);
      stream.off("drain", onDrain);
      stream.off("close", onDrain);
      resolve(read);
    };
    const onDrain = settle(true);
    const timer = setTimeout(settle(false), stallMs);
    stream.on("drain", onDrain);
    stream.on("close", onDrain);
    if (stream.destroyed) onDrain();
  });
}
