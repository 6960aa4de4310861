import type { ServerHttp2Stream } from "node:http2";
import { ErrorReason } from "#gen/posthorn/v1/error_pb.ts";
import { Code, Fault } from "#src/errors.ts";
import type { Encoded, EncodedAnswers, Taker } from "../call.ts";
import type { Exchange } from "../exchange.ts";
import { room } from "../room.ts";
import { unreadable } from "../to-fault.ts";
import { endWith, resetStream, type Writable } from "./endings.ts";

/** See grpcCalls. */
export type Limits = { readonly stallMs: number; readonly maxSendBytes: number };

/**
 * Writes encoded answers as they come, as fast as the caller reads them and no faster. An object that is told of each, and
 * not a loop that awaits them: that would keep a kilobyte of promises for every stream, and take as long as writing.
 */
export class Forward implements Taker {
  readonly #exchange: Exchange;
  readonly #call: Writable;
  readonly #stream: ServerHttp2Stream;
  readonly #answers: EncodedAnswers;
  readonly #limits: Limits;

  constructor(exchange: Exchange, call: Writable, stream: ServerHttp2Stream, answers: EncodedAnswers, limits: Limits) {
    this.#exchange = exchange;
    this.#call = call;
    this.#stream = stream;
    this.#answers = answers;
    this.#limits = limits;
  }

  /** Writes what there is, and goes on with what comes. Call once. */
  run(): void {
    for (;;) {
      const answer = this.#answers.take();
      if (answer === undefined) break;
      if (!this.#write(answer)) return;
    }
    this.#answers.tellNext(this);
  }

  given(answer: Encoded): void {
    if (this.#write(answer)) this.run();
  }

  ended(error: unknown): void {
    if (error === undefined) {
      if (this.#exchange.succeed()) this.#call.end();
    } else if (!this.#exchange.ended) endWith(this.#call, this.#exchange.fail(error));
    this.#leave();
  }

  /** Whether the next may follow at once. */
  #write({ framed }: Encoded): boolean {
    if (this.#exchange.ended) this.#leave();
    else if (framed.byteLength > this.#limits.maxSendBytes) this.ended(unreadable(Code.RESOURCE_EXHAUSTED));
    else if (this.#stream.write(framed)) return true;
    else void this.#goOnWhenRead();
    return false;
  }

  async #goOnWhenRead(): Promise<void> {
    if (await room(this.#stream, this.#limits.stallMs)) {
      this.run();
      return;
    }
    this.#exchange.abort(new Fault(ErrorReason.CANCELLED));
    resetStream(this.#call);
    this.#leave();
  }

  #leave(): void {
    this.#answers.return?.().catch(() => undefined);
  }
}
