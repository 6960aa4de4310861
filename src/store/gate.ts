import { ErrorReason } from "#gen/posthorn/v1/error_pb.ts";
import { Fault } from "#src/errors.ts";

/**
 * No transaction is known to have begun: there is no way to Postgres now. The cause says why. Where statements and COMMIT
 * had gone with BEGIN and the connection broke before any answer, they may have been done.
 */
export class Unreached extends Error {
  constructor(cause: unknown) {
    super("Postgres cannot be reached", { cause });
    this.name = "Unreached";
  }
}

export type GateOptions = {
  /** Calls at once: the connections of the pool. */
  size: number;
  /** Calls at once and waiting; what is more is refused. */
  maxCalls: number;
  /** A call that takes longer, its waiting included, is given up. */
  deadlineMs: number;
};

export type Gate = (<T>(work: () => Promise<T>) => Promise<T>) & {
  /** Calls at this moment. */
  use(): GateUse;
  /** Whether calls are refused but for one that looks. */
  isAway(): boolean;
};

export type GateUse = { size: number; inUse: number; waiting: number };

/** While Postgres is away, one call tries it this often. */
const RETRY_MS = 250;

/**
 * Stands before a pool, because the driver has no deadline, an unbounded queue, and lets each call find out for itself
 * that there is no connection to be had.
 *
 *               no transaction can be begun
 *     open ───────────────────────────────────▶ away   all that wait are refused at once, and so is what comes;
 *      ▲                                         │     one call at a time goes through, to see
 *      └─────────── a transaction began ─────────┘
 */
export function poolGate({ size, maxCalls, deadlineMs }: GateOptions): Gate {
  const waiting = new Set<PromiseWithResolvers<void>>();
  let running = 0;
  let reachedAt = 0;
  let away: { tryAt: number; looker: symbol | undefined; cause: unknown } | undefined;

  function reached(): void {
    reachedAt = performance.now();
    away = undefined;
  }

  function lost(cause: unknown, tryAt: number): void {
    // Who looks goes on looking, whoever else has found out.
    away = { tryAt, looker: away?.looker, cause };
    for (const each of waiting) each.reject(unavailable(cause));
    waiting.clear();
  }

  /** A place at once, or a promise of one. */
  function enter(call: symbol): PromiseWithResolvers<void> | undefined {
    if (away !== undefined) {
      if (away.looker !== undefined || performance.now() < away.tryAt) throw unavailable(away.cause);
      away.looker = call;
    } else if (running >= size) {
      if (running + waiting.size >= maxCalls) throw new Fault(ErrorReason.OVERLOADED);
      const turn = Promise.withResolvers<void>();
      waiting.add(turn);
      return turn;
    }
    running++;
    return undefined;
  }

  /** The place goes to who has waited longest. */
  function leave(): void {
    const [next] = waiting;
    if (next === undefined || running > size) running--;
    else {
      waiting.delete(next);
      next.resolve();
    }
  }

  const pass = async <T>(work: () => Promise<T>): Promise<T> => {
    const call = Symbol();
    const turn = enter(call);
    const limit = Promise.withResolvers<never>();
    const late = new Error("Postgres did not answer");
    const timer = setTimeout(() => {
      if (turn !== undefined && waiting.delete(turn)) turn.reject(unavailable(late));
      else limit.reject(late);
    }, deadlineMs).unref();
    try {
      if (turn !== undefined) await turn.promise;
    } catch (error) {
      clearTimeout(timer);
      throw error;
    }
    const startedAt = performance.now();
    try {
      const result = await Promise.race([work(), limit.promise]);
      reached();
      return result;
    } catch (error) {
      // One that does not end says nothing of the others, unless they did not either.
      if (error === late && reachedAt < startedAt) lost(error, 0);
      else if (isUnreached(error)) lost(error, performance.now() + RETRY_MS);
      // Nor does a connection that ends under its transaction: whether another can be had the next will see.
      else if (error !== late && !isCutOff(error)) reached();
      throw error === late ? unavailable(error) : error;
    } finally {
      if (away?.looker === call) away.looker = undefined;
      clearTimeout(timer);
      leave();
    }
  };
  return Object.assign(pass, {
    use: () => ({ size, inUse: running, waiting: waiting.size }),
    isAway: () => away !== undefined,
  });
}

function isUnreached(error: unknown): boolean {
  return error instanceof Unreached || (error instanceof Error && error.cause instanceof Unreached);
}

function isCutOff(error: unknown): boolean {
  if (!(error instanceof Error)) return false;
  return (
    /^(CONNECTION_|ECONN|EPIPE|ETIMEDOUT|EHOST|ENET)/.test(String(Reflect.get(error, "code"))) || isCutOff(error.cause)
  );
}

function unavailable(cause: unknown): Fault {
  return new Fault(ErrorReason.DEPENDENCY_UNAVAILABLE, { cause });
}
