import type { MessageInitShape } from "@bufbuild/protobuf";
import { ConnectError } from "@connectrpc/connect";
import type { SubscribeRequestSchema, SubscribeResponse } from "#gen/posthorn/v1/stream_service_pb.ts";
import type { Clients } from "./platform.ts";

type Event = SubscribeResponse["event"];
type Case = NonNullable<Event["case"]>;
type ValueOf<C extends Case> = Extract<Event, { case: C }>["value"];

/** A client's open stream: remembers everything it gets, and lets a test wait for what it is about. */
export type Reader = AsyncDisposable & {
  /** All that came, in order. */
  readonly events: Event[];
  /** The next event of this kind after the last one waited for; fails after ten seconds. */
  next<C extends Case>(kind: C, matches?: (value: ValueOf<C>) => boolean): Promise<ValueOf<C>>;
  /** Those of a kind that came until now. */
  all<C extends Case>(kind: C): ValueOf<C>[];
  /** Sequences of the notifications that came until now. */
  sequences(): number[];
  /** Where a client would resume: the cursor of the last event that had one. */
  cursor(): string;
  /** How the server ended it: an error, or undefined for a quiet end. */
  readonly ended: Promise<ConnectError | undefined>;
  close(): Promise<void>;
};

const PATIENCE_MS = 10_000;

/** Opens a stream. `pull` is asked before each event is taken, for readers that are slow. */
export function openReader(
  clients: Pick<Clients, "stream">,
  request: MessageInitShape<typeof SubscribeRequestSchema> = {},
  pull: () => Promise<void> = () => Promise.resolve(),
): Reader {
  const events: Event[] = [];
  const waiting = new Set<() => void>();
  const closing = new AbortController();
  let taken = 0;
  let over = false;
  const tell = () => {
    for (const look of [...waiting]) look();
  };
  const ended = (async () => {
    try {
      const stream = clients.stream.subscribe(request, { signal: closing.signal })[Symbol.asyncIterator]();
      for (;;) {
        await pull();
        const { done, value } = await stream.next();
        if (done) return undefined;
        events.push(value.event);
        tell();
      }
    } catch (error) {
      return ConnectError.from(error);
    } finally {
      over = true;
      tell();
    }
  })();

  function next<C extends Case>(kind: C, matches: (value: ValueOf<C>) => boolean = () => true): Promise<ValueOf<C>> {
    return new Promise((resolve, reject) => {
      const look = () => {
        const at = events.findIndex(
          (event, index) => index >= taken && event.case === kind && matches(event.value as ValueOf<C>),
        );
        if (at === -1 && !over) return;
        clearTimeout(timer);
        waiting.delete(look);
        const found = events[at];
        if (found === undefined) {
          void ended.then((error) => reject(new Error(`the stream ended without ${kind}: ${error?.message}`)));
          return;
        }
        taken = at + 1;
        resolve(found.value as never);
      };
      const timer = setTimeout(() => {
        waiting.delete(look);
        reject(new Error(`no ${kind} came; after the last one waited for: ${events.slice(taken).map((e) => e.case)}`));
      }, PATIENCE_MS);
      waiting.add(look);
      look();
    });
  }

  const all = <C extends Case>(kind: C) =>
    events.filter((event) => event.case === kind).map((event) => event.value as ValueOf<C>);
  const close = async () => {
    closing.abort();
    await ended;
  };
  return {
    events,
    next,
    all,
    sequences: () => all("notification").map((arrived) => Number(arrived.entry?.sequence)),
    cursor: () =>
      events.reduce((last, { value }) => (value !== undefined && "cursor" in value ? value.cursor : last), ""),
    ended,
    close,
    [Symbol.asyncDispose]: close,
  };
}
