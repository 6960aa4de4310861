import type { Encoded, Taker } from "#src/rpc/call.ts";

type Answer = IteratorResult<Encoded, undefined>;

/** What waits for one reader. Bounded, so that a reader who does not read costs no more than that. */
export class OutQueue {
  readonly #maxMessages: number;
  readonly #maxBytes: number;
  readonly #queue: Encoded[] = [];
  #bytes = 0;
  #taken = 0;
  #ending: { error: unknown } | undefined;
  #taker: Taker | undefined;
  #roomy: (() => void) | undefined;

  constructor(maxMessages: number, maxBytes: number) {
    this.#maxMessages = maxMessages;
    this.#maxBytes = maxBytes;
  }

  /** False when it is full: nothing was taken. */
  push(message: Encoded): boolean {
    if (this.#ending !== undefined) return true;
    const taker = this.#taker;
    if (taker !== undefined) {
      this.#taken++;
      this.#taker = undefined;
      taker.given(message);
      return true;
    }
    // What is larger than all the room there is goes alone.
    const size = message.bytes.length;
    const length = this.#queue.length;
    if (length >= this.#maxMessages || (length > 0 && this.#bytes + size > this.#maxBytes)) return false;
    message.keep();
    this.#queue.push(message);
    this.#bytes += size;
    return true;
  }

  /** At most half of the room is used, or the queue has ended. */
  hasRoom(): boolean {
    if (this.#ending !== undefined) return true;
    return this.#queue.length <= this.#maxMessages / 2 && this.#bytes <= this.#maxBytes / 2;
  }

  /** Settles when it has room. */
  async room(): Promise<void> {
    while (!this.hasRoom()) {
      await new Promise<void>((resolve) => {
        this.#roomy = resolve;
      });
    }
  }

  /** The reader gets what waits, and then the error or a quiet end. The first end counts. */
  end(error: unknown): void {
    if (this.#ending !== undefined) return;
    this.#ending = { error };
    const taker = this.#taker;
    this.#taker = undefined;
    taker?.ended(error);
    this.#roomy?.();
  }

  /** For the one reader: what waits, without waiting. */
  take(): Encoded | undefined {
    const message = this.#queue.shift();
    if (message === undefined) return undefined;
    this.#bytes -= message.bytes.length;
    this.#taken++;
    if (this.#roomy !== undefined && this.hasRoom()) this.#roomy();
    return message;
  }

  /** For the one reader, when nothing waits: see EncodedStream. */
  tellNext(taker: Taker): void {
    if (this.#ending === undefined) this.#taker = taker;
    else taker.ended(this.#ending.error);
  }

  /** For the one reader, who asks again only when it was answered. */
  next(): Promise<Answer> {
    const message = this.take();
    if (message !== undefined) return Promise.resolve({ done: false, value: message });
    return new Promise((resolve, reject) => {
      this.tellNext({
        given: (value) => resolve({ done: false, value }),
        ended: (error) => (error === undefined ? resolve({ done: true, value: undefined }) : reject(error)),
      });
    });
  }

  get length(): number {
    return this.#queue.length;
  }

  /** How many the reader has taken so far. */
  get taken(): number {
    return this.#taken;
  }

  get ended(): boolean {
    return this.#ending !== undefined;
  }
}

/** The one reader's side. It ends with the error, or quietly; who leaves off before finishes what fills the queue. */
export class Reader implements AsyncIterator<Encoded, undefined> {
  readonly #queue: OutQueue;
  readonly #filler: { finish(error: undefined): void };

  constructor(queue: OutQueue, filler: { finish(error: undefined): void }) {
    this.#queue = queue;
    this.#filler = filler;
  }

  take(): Encoded | undefined {
    return this.#queue.take();
  }

  tellNext(taker: Taker): void {
    this.#queue.tellNext(taker);
  }

  next(): Promise<Answer> {
    return this.#queue.next();
  }

  async return(): Promise<IteratorReturnResult<undefined>> {
    this.#filler.finish(undefined);
    return { done: true, value: undefined };
  }
}
