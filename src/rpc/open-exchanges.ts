import { ErrorReason } from "#gen/posthorn/v1/error_pb.ts";
import { Fault } from "#src/errors.ts";
import type { Exchange } from "./exchange.ts";

/** The open calls of a port. */
export type OpenExchanges = {
  add(exchange: Exchange): void;
  delete(exchange: Exchange): void;
  /** Resolves when none is open, or after `ms`. */
  idle(ms: number): Promise<void>;
  /** Tells all that are open SHUTTING_DOWN. */
  abort(): void;
};

export function openExchanges(): OpenExchanges {
  const open = new Set<Exchange>();
  let onIdle: (() => void) | undefined;
  return {
    add: (exchange) => void open.add(exchange),
    delete(exchange) {
      open.delete(exchange);
      if (open.size === 0) onIdle?.();
    },
    idle(ms) {
      if (open.size === 0 || ms <= 0) return Promise.resolve();
      return new Promise((resolve) => {
        const timer = setTimeout(resolve, Math.min(ms, 2 ** 31 - 1));
        onIdle = () => {
          clearTimeout(timer);
          resolve();
        };
      });
    },
    abort() {
      const fault = new Fault(ErrorReason.SHUTTING_DOWN);
      for (const exchange of open) exchange.abort(fault);
    },
  };
}
