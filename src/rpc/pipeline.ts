import type { Message } from "@bufbuild/protobuf";
import type { Clock } from "#src/clock.ts";
import type { NewId } from "#src/ids.ts";
import type { ApiLimits } from "#src/limits/api-limits.ts";
import type { Logger } from "#src/telemetry/logger.ts";
import type { Metrics } from "#src/telemetry/metrics.ts";
import { checkAccess } from "./access.ts";
import { ACCESS_RULES, type AccessRule } from "./access-rules.ts";
import type { EncodedAnswers, Principal, Service } from "./call.ts";
import type { Exchange } from "./exchange.ts";
import { type Procedure, procedures } from "./procedure.ts";
import { rpcTelemetry, type Tell, within } from "./rpc-telemetry.ts";
import type { Violations } from "./validate.ts";
import { type StillValid, watchCredentials } from "./watch-credentials.ts";

/** Who calls, by the values of `authorization` and `posthorn-tenant`. Throws Faults. */
export type Authenticate = (authorization: string | undefined, tenantHeader: string | undefined) => Promise<Principal>;

export type PipelineDeps = {
  readonly services: readonly Service[];
  readonly authenticate: Authenticate;
  readonly stillValid: StillValid;
  readonly limits: ApiLimits;
  readonly violations: Violations;
  readonly deadlines: { readonly defaultUnaryMs: number; readonly maxUnaryMs: number };
  readonly newId: NewId;
  readonly clock: Clock;
  readonly log: Logger;
  readonly metrics: Pick<Metrics, "rpcRequests" | "rpcSeconds" | "rpcActive">;
  /** Default: ACCESS_RULES, for a process that serves every service. */
  readonly rules?: Readonly<Record<string, AccessRule>>;
};

/**
 * The chain every call runs through, written once for all transports (see Exchange): request id, span, authentication,
 * access rule, API limits, validation, deadline, handler, error mapping, metrics and log.
 */
export type Pipeline = Disposable & {
  /** By path, `/posthorn.v1.SendService/Send`. */
  readonly procedures: ReadonlyMap<string, Procedure>;
  readonly services: readonly Service[];
  readonly authenticate: Authenticate;
  readonly limits: ApiLimits;
  readonly deadlines: PipelineDeps["deadlines"];
  readonly newId: NewId;
  readonly log: Logger;
  readonly tell: Tell;
  /** Checks the stream's credential until it ends. */
  watch(exchange: Exchange): void;
};

/** @throws when a method has no access rule or no handler, or a rule no method: then nothing may be served. */
export function createPipeline(deps: PipelineDeps): Pipeline {
  const rules: Readonly<Record<string, AccessRule>> = deps.rules ?? ACCESS_RULES;
  checkAccess(rules, deps.services);
  const watch = watchCredentials(deps.stillValid, deps.clock);
  return {
    procedures: procedures(deps.services, rules, deps.violations),
    services: deps.services,
    authenticate: deps.authenticate,
    limits: deps.limits,
    deadlines: deps.deadlines,
    newId: deps.newId,
    log: deps.log,
    tell: rpcTelemetry(deps.metrics, deps.log),
    watch: watch.add,
    [Symbol.dispose]: () => watch[Symbol.dispose](),
  };
}

/** Calls the handler of a unary method, of which `request` was accepted. */
export function callUnary(exchange: Exchange, request: Message): Promise<unknown> {
  return within(exchange.context, () => exchange.procedure.handler(request, exchange)) as Promise<unknown>;
}

/** What a streaming method answers. */
export type Answers = AsyncIterator<unknown> | EncodedAnswers;

export function areEncoded(answers: Answers): answers is EncodedAnswers {
  return "tellNext" in answers;
}

/**
 * The answers of a streaming method. The iterator of a handler that makes them runs with the call's span active; one that
 * only hands on what others made has nothing to be traced. `request` is the accepted message, or for bidirectional
 * methods the iterable of accepted messages.
 */
export function callStream(exchange: Exchange, request: unknown): Answers {
  const answers = within(exchange.context, () => exchange.procedure.handler(request, exchange));
  const iterator = (answers as AsyncIterable<unknown>)[Symbol.asyncIterator]() as Answers;
  if (areEncoded(iterator)) return iterator;
  return {
    next: () => within(exchange.context, () => iterator.next()),
    return: async (value?: unknown) => (await iterator.return?.(value)) ?? { done: true, value: undefined },
  };
}
