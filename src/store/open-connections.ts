import type { Sql } from "postgres";

type Queue = { readonly length: number; shift(): unknown; push(connection: unknown): void };
type OnExecute = (connection: { queue: Queue }) => unknown;

/** An array of so many is looked through in no time. */
const USES = 256;

/**
 * Keeps the driver's list of open connections short. postgres.js 3.4.9 takes them from the front of an array and puts them
 * back at its end, and lets go of what it has taken only when none is left (src/queue.js). In a pool that is never in full
 * use the array grows with every transaction, and every transaction looks through all of it.
 */
export function keepShort(client: Sql): void {
  const uses = new WeakMap<Queue, number>();
  const tidy = (queue: Queue) => {
    const count = (uses.get(queue) ?? 0) + 1;
    uses.set(queue, count % USES);
    if (count < USES) return;
    const connections = Array.from({ length: queue.length }, () => queue.shift());
    for (const connection of connections) queue.push(connection);
  };
  const unsafe = client.unsafe as (text: string, args?: unknown, options?: object) => unknown;
  // By this the driver's `begin`, too, takes a connection.
  client.unsafe = ((text: string, args?: unknown, options?: { onexecute?: OnExecute }) => {
    const onexecute = options?.onexecute;
    if (onexecute === undefined) return options === undefined ? unsafe(text, args) : unsafe(text, args, options);
    const taking: OnExecute = (connection) => {
      tidy(connection.queue);
      return onexecute(connection);
    };
    return unsafe(text, args, { ...options, onexecute: taking });
  }) as Sql["unsafe"];
}
