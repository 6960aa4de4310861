import type { ServiceError } from "@grpc/grpc-js";
import { StreamService, type SubscribeResponse } from "#gen/posthorn/v1/stream_service_pb.ts";
import { type Connection, connectTo, retryable } from "./connection.ts";
import type { Address, Site } from "./lab.ts";
import { type Random, seededRandom } from "./random.ts";
import { userName } from "./sender.ts";

export type Entry = { seq: number; id: string; title: string };

/** What the devices of users saw, one stream each that resumes wherever it is cut. */
export type Readers = Disposable & {
  /** By user: the entries its stream was given, in that order. */
  readonly seen: ReadonlyMap<string, readonly Entry[]>;
  /** What a stream must never do: skip, repeat, go back, or reset where nothing was trimmed. */
  readonly broken: readonly string[];
  /** How often streams that had been open were opened again. */
  readonly resumed: number;
  /** How often a stream was told to go elsewhere, by cause. */
  readonly reconnects: ReadonlyMap<number, number>;
  /** Open streams that ended without a word: with an error, or without Reconnect. */
  readonly cut: number;
  /** Streams open at a node, by its place in the site. */
  openAt(node: number): number;
};

/** Streams on one connection, far enough below what a server allows. */
const PER_CONNECTION = 250;
/** Silence after which a client takes the connection for dead: two and a half heartbeats. */
const SILENCE_MS = 5000;
const WATCH_MS = 500;

type State = {
  userId: string;
  cursor: string;
  node: number;
  heardAt: number;
  open: boolean;
  entries: Entry[];
  stream: { cancel(): void } | undefined;
  /** Streams of earlier lives say nothing any more. */
  life: number;
};

/** Opens a stream for each of the first `users`, and resolves when all have caught up. */
export async function openReaders(site: Site<Address>, users: number, seed: number): Promise<Readers> {
  const random: Random = seededRandom(seed);
  const connections = site.nodes.map(({ address }) =>
    Array.from({ length: Math.ceil(users / PER_CONNECTION) }, () => connectTo(address, site.apiKey)),
  );
  const states = Array.from({ length: users }, (_, n): State => {
    const node = random.int(0, site.nodes.length - 1);
    return { userId: userName(n), cursor: "", node, heardAt: 0, open: false, entries: [], stream: undefined, life: 0 };
  });
  const broken: string[] = [];
  const reconnects = new Map<number, number>();
  let resumed = 0;
  let cut = 0;
  let closed = false;
  let opening = users;
  const open = Promise.withResolvers<void>();

  function subscribe(state: State, index: number): void {
    if (closed) return;
    const life = ++state.life;
    const ours = connections[state.node % connections.length] as Connection[];
    const connection = ours[index % ours.length] as Connection;
    state.heardAt = performance.now();
    let told: number | undefined;
    state.open = false;
    state.stream = connection.open(
      StreamService.method.subscribe,
      { userId: state.userId, cursor: state.cursor, deviceId: "faults" },
      {
        message({ event }) {
          if (state.life !== life) return;
          state.heardAt = performance.now();
          if (event.case === "hello") {
            state.open = true;
            if (life > 1) resumed++;
          }
          if (event.case === "caughtUp" && state.cursor === "" && --opening === 0) open.resolve();
          if (event.case === "reconnect") {
            told = Number(event.value.after?.seconds ?? 0n) * 1000 + (event.value.after?.nanos ?? 0) / 1e6;
            reconnects.set(event.value.cause, (reconnects.get(event.value.cause) ?? 0) + 1);
          }
          take(state, event);
        },
        ended(error) {
          if (state.life !== life || closed) return;
          if (told === undefined && state.open) cut++;
          if (error !== undefined && !streamMayEnd(error)) broken.push(`${state.userId}'s stream: ${error.message}`);
          again(state, index, told ?? 50 + random.fraction() * 300);
        },
      },
    );
  }

  function again(state: State, index: number, afterMs: number): void {
    state.life++;
    state.stream?.cancel();
    state.open = false;
    state.node++;
    state.heardAt = performance.now() + afterMs;
    setTimeout(() => subscribe(state, index), afterMs);
  }

  function take(state: State, event: SubscribeResponse["event"]): void {
    if (event.case === "reset") broken.push(`${state.userId}'s stream was reset: cause ${event.value.cause}`);
    if (event.case === "notification") {
      const seq = Number(event.value.entry?.sequence);
      const last = state.entries.at(-1)?.seq ?? 0;
      if (seq !== last + 1) broken.push(`${state.userId}'s stream gave ${seq} after ${last}`);
      const { notificationId: id = "", content } = event.value.entry ?? {};
      state.entries.push({ seq, id, title: content?.title ?? "" });
    }
    if (event.value !== undefined && "cursor" in event.value) state.cursor = event.value.cursor || state.cursor;
  }

  states.forEach(subscribe);
  let lookedAt = performance.now();
  const watchdog = setInterval(() => {
    const now = performance.now();
    // Who comes late himself has not read yet what is there.
    const isLate = now - lookedAt > 2 * WATCH_MS;
    lookedAt = now;
    if (isLate) return;
    states.forEach((state, index) => {
      if (now - state.heardAt > SILENCE_MS) again(state, index, random.fraction() * 300);
    });
  }, WATCH_MS);
  await open.promise;
  return {
    seen: new Map(states.map(({ userId, entries }) => [userId, entries])),
    broken,
    reconnects,
    get resumed() {
      return resumed;
    },
    get cut() {
      return cut;
    },
    openAt: (node) => states.filter((state) => state.open && state.node % connections.length === node).length,
    [Symbol.dispose]() {
      closed = true;
      clearInterval(watchdog);
      for (const { stream } of states) stream?.cancel();
      for (const connection of connections.flat()) connection[Symbol.dispose]();
    },
  };
}

/** A connection that breaks while a message is read ends as INTERNAL or UNKNOWN in the client itself. */
function streamMayEnd(error: ServiceError): boolean {
  return retryable(error) || error.details.startsWith("Received RST_STREAM");
}
