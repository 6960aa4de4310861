import type { Encoded } from "#src/rpc/call.ts";

/** What waits for one reader. Bounded, so that a reader who does not read costs no more than that. */
export type OutQueue = {
  /** False when it is full: nothing was taken. */
  push(message: Encoded): boolean;
  /** At most half of the room is used, or the queue has ended. */
  hasRoom(): boolean;
  /** Settles when it has room. */
  room(): Promise<void>;
  /** The reader gets what waits, and then the error or a quiet end. The first end counts. */
  end(error: unknown): void;
  /** For the one reader: what waits, without waiting. */
  take(): Encoded | undefined;
  /** For the one reader, who asks again only when it was answered. */
  next(): Promise<IteratorResult<Encoded, undefined>>;
  readonly length: number;
  /** How many the reader has taken so far. */
  readonly taken: number;
  readonly ended: boolean;
};

export function outQueue(maxMessages: number, maxBytes: number): OutQueue {
  const queue: Encoded[] = [];
  let bytes = 0;
  let taken = 0;
  let ending: { error: unknown } | undefined;
  let reader: PromiseWithResolvers<IteratorResult<Encoded, undefined>> | undefined;
  let roomy: (() => void) | undefined;
  const halfFull = () => ending === undefined && (queue.length > maxMessages / 2 || bytes > maxBytes / 2);

  function take(): Encoded | undefined {
    const message = queue.shift();
    if (message === undefined) return undefined;
    bytes -= message.bytes.length;
    taken++;
    if (roomy !== undefined && !halfFull()) roomy();
    return message;
  }

  function settle({ resolve, reject }: PromiseWithResolvers<IteratorResult<Encoded, undefined>>): void {
    if (ending?.error !== undefined) reject(ending.error);
    else resolve({ done: true, value: undefined });
  }

  return {
    push(message) {
      if (ending !== undefined) return true;
      if (reader !== undefined) {
        taken++;
        reader.resolve({ done: false, value: message });
        reader = undefined;
        return true;
      }
      // What is larger than all the room there is goes alone.
      const size = message.bytes.length;
      if (queue.length >= maxMessages || (queue.length > 0 && bytes + size > maxBytes)) return false;
      message.keep();
      queue.push(message);
      bytes += size;
      return true;
    },
    hasRoom: () => !halfFull(),
    async room() {
      while (halfFull()) {
        await new Promise<void>((resolve) => {
          roomy = resolve;
        });
      }
    },
    end(error) {
      if (ending !== undefined) return;
      ending = { error };
      if (reader !== undefined) settle(reader);
      reader = undefined;
      roomy?.();
    },
    take,
    next() {
      const message = take();
      if (message !== undefined) return Promise.resolve({ done: false, value: message });
      const waiting = Promise.withResolvers<IteratorResult<Encoded, undefined>>();
      if (ending === undefined) reader = waiting;
      else settle(waiting);
      return waiting.promise;
    },
    get length() {
      return queue.length;
    },
    get taken() {
      return taken;
    },
    get ended() {
      return ending !== undefined;
    },
  };
}
