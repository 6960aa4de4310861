import type { DescMethod, Message } from "@bufbuild/protobuf";
import type { Context, Span } from "@opentelemetry/api";
import { ErrorReason } from "#gen/posthorn/v1/error_pb.ts";
import { Code, Fault } from "#src/errors.ts";
import type { Logger } from "#src/telemetry/logger.ts";
import { TENANT_HEADER } from "./access.ts";
import type { Call, Principal } from "./call.ts";
import type { Pipeline } from "./pipeline.ts";
import type { Procedure } from "./procedure.ts";
import { startSpan, type Transport, within } from "./rpc-telemetry.ts";
import { toFault, unreadable } from "./to-fault.ts";

/** What a transport knows of a call before its request is read. */
export type Arrival = {
  readonly transport: Transport;
  /** As Node says it: "1.1", "2.0". */
  readonly httpVersion: string;
  /** A request header by its lower-case name; the first, if there are several. */
  readonly header: (name: string) => string | undefined;
  /** How long the caller waits, in milliseconds; undefined: it did not say. */
  readonly timeoutMs: number | undefined | "invalid";
};

/**
 * One call from arrival to its end: what handlers see of it (`Call`), and the stages every transport runs in order:
 *
 *     new ─▶ admit() ─▶ accept(message) ─▶ handler ─▶ succeed() | fail(error)
 *      └────────┴─────────────┴──────────────┴─▶ abort(fault): deadline, caller gone, revoked, shutting down
 *
 * Whatever ends it first counts; everything later is ignored.
 */
export class Exchange implements Call {
  readonly procedure: Procedure;
  readonly transport: Transport;
  readonly requestId: string;
  readonly context: Context;
  readonly #span: Span;
  readonly #startedAt: number;
  readonly #pipeline: Pipeline;
  readonly #authorization: string | undefined;
  readonly #tenantHeader: string | undefined;
  /** The header of a time-out that is none. */
  readonly #invalidTimeout: string | undefined;
  readonly #timer: NodeJS.Timeout | undefined;
  #principal: Principal | undefined;
  #controller: AbortController | undefined;
  #log: Logger | undefined;
  #racing: Set<(fault: Fault) => void> | undefined;
  #end: { readonly fault: Fault | undefined } | undefined;
  #answerHeaders: Map<string, string> | undefined;
  /** Called once if the call is aborted, with what the caller is to be told. The transport answers there. */
  onAbort: ((fault: Fault) => void) | undefined;

  constructor(pipeline: Pipeline, procedure: Procedure, arrival: Arrival) {
    this.procedure = procedure;
    this.transport = arrival.transport;
    this.requestId = pipeline.newId();
    this.#pipeline = pipeline;
    this.#startedAt = performance.now();
    this.#authorization = arrival.header("authorization");
    this.#tenantHeader = arrival.header(TENANT_HEADER) || undefined;
    const { span, context } = startSpan(procedure, arrival);
    this.#span = span;
    this.context = context;
    const { defaultUnaryMs, maxUnaryMs } = pipeline.deadlines;
    const timeoutMs = arrival.timeoutMs === "invalid" ? undefined : arrival.timeoutMs;
    if (arrival.timeoutMs === "invalid")
      this.#invalidTimeout = arrival.header("grpc-timeout") === undefined ? "connect-timeout-ms" : "grpc-timeout";
    const limitMs = procedure.kind === "unary" ? Math.min(timeoutMs ?? defaultUnaryMs, maxUnaryMs) : timeoutMs;
    // Longer than a timer can be (2^31 ms) is as good as none.
    if (limitMs !== undefined && limitMs < 2 ** 31) this.#timer = setTimeout(expire, Math.max(0, limitMs), this);
    pipeline.tell.began(arrival.transport);
  }

  get method(): DescMethod {
    return this.procedure.method;
  }

  get principal(): Principal {
    if (this.#principal === undefined) throw new Error("the call is not authenticated yet");
    return this.#principal;
  }

  get admitted(): boolean {
    return this.#principal !== undefined;
  }

  get tenantId(): string {
    return this.principal.tenantId ?? "";
  }

  get actor(): string {
    const { principal } = this;
    switch (principal.kind) {
      case "operator":
        return "operator";
      case "key":
        return `key:${principal.keyId}`;
      case "user":
        return `user:${principal.userId}`;
      default:
        return principal satisfies never;
    }
  }

  /** Made when it is first asked for: most calls are over before anybody listens. */
  get signal(): AbortSignal {
    if (this.#controller === undefined) {
      this.#controller = new AbortController();
      if (this.#end?.fault !== undefined) this.#controller.abort(this.#end.fault);
    }
    return this.#controller.signal;
  }

  get log(): Logger {
    this.#log ??= this.#pipeline.log.child({
      request_id: this.requestId,
      method: this.procedure.name,
      actor: this.actor,
      ...(this.tenantId === "" ? {} : { tenant: this.tenantId }),
    });
    return this.#log;
  }

  answerWith(name: string, value: string): void {
    this.#answerHeaders ??= new Map();
    this.#answerHeaders.set(name, value);
  }

  /** What the transport sends before the answer; undefined: nothing of the handler's. */
  get answerHeaders(): ReadonlyMap<string, string> | undefined {
    return this.#answerHeaders;
  }

  get ended(): boolean {
    return this.#end !== undefined;
  }

  /** It has ended, and not well. */
  get refused(): boolean {
    return this.#end?.fault !== undefined;
  }

  /** Authentication, access rule, API limits. */
  async admit(): Promise<void> {
    const { authenticate, limits } = this.#pipeline;
    const principal = await within(this.context, () => authenticate(this.#authorization, this.#tenantHeader));
    this.#principal = principal;
    this.procedure.access.admit(principal);
    const exceeded = limits(principal);
    if (exceeded !== undefined) throw exceeded;
    if (this.#invalidTimeout !== undefined)
      throw unreadable(Code.INVALID_ARGUMENT, "its time-out is not one", this.#invalidTimeout);
  }

  /** Whether the caller may ask for this, and whether it is valid. For every message of a streaming request. */
  accept<M extends Message>(request: M): M {
    this.procedure.check(this.principal, request);
    return request;
  }

  /** Settles like `work`, or rejects as soon as the call is aborted. For transports that answer by returning. */
  race<T>(work: Promise<T>): Promise<T> {
    return new Promise((resolve, reject) => {
      if (this.#end?.fault !== undefined) {
        work.catch(() => undefined); // Nobody else hears of it, and what nobody hears of ends the process.
        return reject(this.#end.fault);
      }
      this.#racing ??= new Set();
      this.#racing.add(reject);
      work.then(resolve, reject).finally(() => this.#racing?.delete(reject));
    });
  }

  /** False: something else has ended the call before. */
  succeed(): boolean {
    return this.#finish(undefined);
  }

  /** What the caller is told about the error: what ended the call, if something has ended it before. */
  fail(error: unknown): Fault {
    const fault = this.#end?.fault ?? toFault(error, this.requestId);
    this.#finish(fault);
    return fault;
  }

  /** Ends the call from outside: its signal aborts, and the caller is told at once, whatever the handler does. */
  abort(fault: Fault): void {
    if (!this.#finish(fault)) return;
    this.#controller?.abort(fault);
    this.onAbort?.(fault);
    for (const reject of this.#racing ?? []) reject(fault);
  }

  #finish(fault: Fault | undefined): boolean {
    if (this.#end !== undefined) return false;
    this.#end = { fault };
    clearTimeout(this.#timer);
    const principal = this.#principal;
    this.#pipeline.tell.ended({
      procedure: this.procedure,
      transport: this.transport,
      span: this.#span,
      milliseconds: performance.now() - this.#startedAt,
      fault,
      requestId: this.requestId,
      actor: principal === undefined ? undefined : this.actor,
      tenantId: principal?.tenantId,
    });
    return true;
  }
}

function expire(exchange: Exchange): void {
  exchange.abort(new Fault(ErrorReason.DEADLINE_EXCEEDED));
}
