import { Encoded } from "#src/rpc/call.ts";

/** What waits for one reader. Bounded, so that a reader who does not read costs no more than that. */
export type OutQueue = {
  /** False when it is full: nothing was taken. */
  push(bytes: Uint8Array): boolean;
  /** At most half of the room is used, or the queue has ended. */
  hasRoom(): boolean;
  /** Settles when it has room. */
  room(): Promise<void>;
  /** The reader gets what waits, and then the error or a quiet end. The first end counts. */
  end(error: unknown): void;
  /** For one reader. */
  read(): AsyncGenerator<Encoded>;
  readonly length: number;
  /** How many the reader has taken so far. */
  readonly taken: number;
  readonly ended: boolean;
};

export function outQueue(maxMessages: number, maxBytes: number): OutQueue {
  const queue: Uint8Array[] = [];
  let bytes = 0;
  let taken = 0;
  let ending: { error: unknown } | undefined;
  let wake: (() => void) | undefined;
  let roomy: (() => void) | undefined;
  const halfFull = () => ending === undefined && (queue.length > maxMessages / 2 || bytes > maxBytes / 2);

  return {
    push(message) {
      if (ending !== undefined) return true;
      // What is larger than all the room there is goes alone.
      if (queue.length >= maxMessages || (queue.length > 0 && bytes + message.length > maxBytes)) return false;
      queue.push(message);
      bytes += message.length;
      wake?.();
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
      wake?.();
      roomy?.();
    },
    async *read() {
      for (;;) {
        const message = queue.shift();
        if (message !== undefined) {
          bytes -= message.length;
          taken++;
          if (!halfFull()) roomy?.();
          yield new Encoded(message);
        } else if (ending !== undefined) {
          if (ending.error !== undefined) throw ending.error;
          return;
        } else {
          await new Promise<void>((resolve) => {
            wake = resolve;
          });
        }
      }
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
