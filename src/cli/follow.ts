// A stream that survives its connection: the loop every client of StreamService.Subscribe needs.
import { setTimeout as delay } from "node:timers/promises";
import { type Duration, durationMs } from "@bufbuild/protobuf/wkt";
import { Code, ConnectError } from "@connectrpc/connect";
import { RetryInfoSchema } from "#gen/google/rpc/error_details_pb.ts";
import type { SubscribeResponse } from "#gen/posthorn/v1/stream_service_pb.ts";

export type Follow = {
  /** Opens the stream after `cursor`; aborting `signal` closes it. */
  open: (cursor: string, signal: AbortSignal) => AsyncIterable<SubscribeResponse>;
  /** Where to begin; empty: now. */
  cursor: string;
  /** Ends the whole. */
  signal: AbortSignal;
  now: () => Date;
  /** From 0 to 1. */
  random: () => number;
  /** Told about every cut, before the pause. */
  onCut: (why: string, pauseMs: number) => void;
};

const LONGEST_PAUSE_MS = 30_000;
const STABLE_MS = 60_000;

/** Full jitter: a pause between nothing and a bound that doubles from 1 s to 30 s, so that clients do not come at once. */
export function pauseMs(attempt: number, random: number): number {
  return Math.round(random * Math.min(LONGEST_PAUSE_MS, 1000 * 2 ** attempt));
}

/**
 * Yields events until `signal` aborts. When the stream is cut, falls silent, or the server asks to come back, it goes on
 * from the last cursor: no notification is missed, none comes twice.
 *
 * @throws when the first attempt fails, and when the server refuses in a way that trying again cannot mend.
 */
export async function* follow(options: Follow): AsyncGenerator<SubscribeResponse, void> {
  const { signal, onCut } = options;
  let { cursor } = options;
  let connected = false;
  let lastSequence = 0n;
  for (let attempt = 0; !signal.aborted; attempt++) {
    const began = options.now().getTime();
    let why = "the server ended the stream";
    let asked: number | undefined;
    try {
      for await (const response of watched(options.open, cursor, signal)) {
        connected = true;
        const { event } = response;
        if (event.case === "notification") {
          const sequence = event.value.entry?.sequence ?? 0n;
          cursor = event.value.cursor;
          if (sequence <= lastSequence) continue;
          lastSequence = sequence;
        } else if (event.case === "caughtUp" || event.case === "heartbeat" || event.case === "reset") {
          cursor = event.value.cursor || cursor;
          if (event.case === "reset") lastSequence = 0n; // The inbox may have begun anew.
        }
        yield response;
        if (event.case === "reconnect") {
          cursor = event.value.cursor || cursor;
          asked = ms(event.value.after) ?? 0;
          why = "the server asked to reconnect";
          break;
        }
      }
    } catch (error) {
      if (signal.aborted) return;
      if (!connected || !mayRecover(error)) throw error;
      why = error instanceof ConnectError ? error.rawMessage : String(error);
      asked = retryDelay(error);
    }
    if (signal.aborted) return;
    if (options.now().getTime() - began > STABLE_MS) attempt = 0;
    const pause =
      why === "the server asked to reconnect" ? (asked ?? 0) : Math.max(asked ?? 0, pauseMs(attempt, options.random()));
    onCut(why, pause);
    await delay(pause, undefined, { signal }).catch(() => undefined);
  }
}

/** One connection, ended when nothing has come for 2.5 heartbeats: a dead peer does not say so. */
async function* watched(
  open: Follow["open"],
  cursor: string,
  signal: AbortSignal,
): AsyncGenerator<SubscribeResponse, void> {
  const silent = new AbortController();
  const giveUp = () => silent.abort(new ConnectError("nothing was heard for 2.5 heartbeats", Code.Unavailable));
  const ended = AbortSignal.any([signal, silent.signal]);
  let watchdog: NodeJS.Timeout | undefined;
  try {
    for await (const response of open(cursor, ended)) {
      const heartbeat = response.event.case === "hello" ? ms(response.event.value.heartbeatInterval) : undefined;
      if (heartbeat !== undefined) {
        clearTimeout(watchdog);
        watchdog = setTimeout(giveUp, heartbeat * 2.5);
      }
      yield response;
      watchdog?.refresh();
    }
  } catch (error) {
    throw silent.signal.aborted ? silent.signal.reason : error;
  } finally {
    clearTimeout(watchdog);
    silent.abort(); // Closes the connection when the reader has stopped early.
  }
}

/** What another attempt can change: everything but a refusal of the request or of its credential. */
function mayRecover(error: unknown): boolean {
  if (!(error instanceof ConnectError)) return false;
  const final: readonly Code[] = [
    Code.InvalidArgument,
    Code.NotFound,
    Code.PermissionDenied,
    Code.Unauthenticated,
    Code.FailedPrecondition,
    Code.Unimplemented,
  ];
  return !final.includes(error.code);
}

function retryDelay(error: unknown): number | undefined {
  return error instanceof ConnectError ? ms(error.findDetails(RetryInfoSchema)[0]?.retryDelay) : undefined;
}

function ms(duration: Duration | undefined): number | undefined {
  return duration === undefined ? undefined : durationMs(duration);
}
