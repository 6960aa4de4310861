import type { Client } from "@connectrpc/connect";
import type { StreamService, SubscribeResponse } from "#gen/posthorn/v1/stream_service_pb.ts";

type Event = SubscribeResponse["event"];
type Case = NonNullable<Event["case"]>;
export type EventOf<C extends Case> = Extract<Event, { case: C }>["value"];

/** One device with an open stream, and everything it has received. */
export type Watch = {
  readonly events: readonly Event[];
  /** The cursor to resume from. */
  readonly cursor: string;
  /**
   * The first event of this kind that matches, looked for among those received and those to come, with the instant
   * (performance.now) it was received.
   *
   * @throws when the stream ends, or after `withinMs`.
   */
  until<C extends Case>(
    kind: C,
    match?: (value: EventOf<C>) => boolean,
    withinMs?: number,
  ): Promise<{ value: EventOf<C>; at: number }>;
  /** Cuts the connection, as a tunnel does: without a word. */
  cut(): void;
};

type Seen = { event: Event; at: number };

/** Opens a stream and reads it until it is cut. */
export function watch(
  client: Client<typeof StreamService>,
  request: Parameters<Client<typeof StreamService>["subscribe"]>[0],
): Watch {
  const cutter = new AbortController();
  const seen: Seen[] = [];
  let cursor = request.cursor ?? "";
  let ended: Error | undefined;
  let waiting: (() => void)[] = [];
  const wake = () => {
    const all = waiting;
    waiting = [];
    for (const each of all) each();
  };
  void (async () => {
    try {
      for await (const { event } of client.subscribe(request, { signal: cutter.signal })) {
        seen.push({ event, at: performance.now() });
        if (event.value !== undefined && "cursor" in event.value) cursor = event.value.cursor || cursor;
        wake();
      }
      ended = new Error("the stream ended");
    } catch (error) {
      ended = error instanceof Error ? error : new Error(String(error));
    }
    wake();
  })();
  return {
    get events() {
      return seen.map(({ event }) => event);
    },
    get cursor() {
      return cursor;
    },
    async until(kind, match = () => true, withinMs = 10_000) {
      const deadline = performance.now() + withinMs;
      for (let from = 0; ; ) {
        for (; from < seen.length; from++) {
          const { event, at } = seen[from] as Seen;
          if (event.case === kind && match(event.value as EventOf<typeof kind>))
            return { value: event.value as EventOf<typeof kind>, at };
        }
        if (ended) throw new Error(`waiting for "${kind}": ${ended.message}`, { cause: ended });
        const left = deadline - performance.now();
        if (left <= 0) throw new Error(`no "${kind}" came within ${withinMs} ms`);
        await new Promise<void>((resolve) => {
          const timer = setTimeout(resolve, left);
          waiting.push(() => {
            clearTimeout(timer);
            resolve();
          });
        });
      }
    },
    cut: () => cutter.abort(),
  };
}
