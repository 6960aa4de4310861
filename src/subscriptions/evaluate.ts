import { type CelEnv, celEnv, celError, isCelList, isCelMap, plan } from "@bufbuild/cel";
import { strings } from "@bufbuild/cel/ext";
import { fromBinary, type JsonValue } from "@bufbuild/protobuf";
import { LRUCache } from "lru-cache";
import { ContentSchema } from "#gen/posthorn/v1/notification_pb.ts";
import { ITEMS, TICK, vet } from "./vet.ts";

/** What a filter is about. */
export type Filtered = {
  readonly type: string;
  readonly category: string;
  readonly priority: number;
  readonly tags: readonly string[];
  /** Encoded posthorn.v1.Content. Read when a filter asks for `data`. */
  readonly content: Uint8Array | undefined;
};

/** `failed`: nothing matched, and not everything could be asked. */
export type Answer = "match" | "no match" | "failed";

export type FilterEvaluator = {
  /** Has a filter ready, so that asking it costs no more than its run. */
  prepare(filter: string): void;
  /**
   * Whether of each group at least one filter matches. Bounded in time and memory by the steps all of them may take
   * together, whatever they and the data are.
   */
  ask(groups: readonly (readonly string[])[], about: Filtered): Answer;
  /** The same with what matched: its place in each group. Where the answer is another, the group after these gave it. */
  judge(groups: readonly (readonly string[])[], about: Filtered): { answer: Answer; matched: number[] };
  /** Steps that were taken until now, for whoever has to bound what many questions cost together. */
  spent(): number;
};

type Run = (variables: Record<string, unknown>) => unknown;

/**
 * Steps that the filters of one notification may take: some hundred items looked at, a few milliseconds at the very worst
 * (test/subscriptions/hostile.unit.test.ts).
 */
const STEPS = 5_000;
/** What a character of a filter costs to get ready, in such steps. */
const READYING = 4;
/** Filters held ready, at some 10 kB each. */
const MAX_READY = 2000;

export function filterEvaluator(maxReady = MAX_READY): FilterEvaluator {
  const meter = { left: 0, dataSize: 0 };
  const env = meteredEnv(meter);
  const ready = new LRUCache<string, Run>({ max: maxReady });
  let spent = 0;

  function readied(filter: string): Run {
    let run = ready.get(filter);
    if (run === undefined) {
      run = compiled(filter);
      ready.set(filter, run);
      spent += filter.length * READYING;
    }
    return run;
  }

  function compiled(filter: string): Run {
    try {
      return plan(env, vet(filter)) as Run;
    } catch (error) {
      // Stored by a server that allows more. It fails here, whenever it is asked.
      return () => celError(error);
    }
  }

  const evaluator: FilterEvaluator = {
    prepare: readied,
    ask: (groups, about) => evaluator.judge(groups, about).answer,
    judge(groups, about) {
      const variables = variablesOf(about, meter);
      meter.left = STEPS;
      const matched: number[] = [];
      const answer = withoutTraces((): Answer => {
        for (const group of groups) {
          const found = first(group.map(readied), variables);
          if (typeof found !== "number") return found;
          matched.push(found);
        }
        return "match";
      });
      spent += STEPS - Math.max(meter.left, 0) + meter.dataSize;
      return { answer, matched };
    },
    spent: () => spent,
  };
  return evaluator;
}

/** The place of the first that matches. */
function first(runs: readonly Run[], variables: Record<string, unknown>): number | Exclude<Answer, "match"> {
  let failed = false;
  for (const [at, run] of runs.entries()) {
    const value = run(variables);
    if (value === true) return at;
    if (value !== false) failed = true;
  }
  return failed ? "failed" : "no match";
}

type Meter = { left: number; dataSize: number };

function variablesOf({ content, ...about }: Filtered, meter: Meter): Record<string, unknown> {
  let data: unknown;
  meter.dataSize = 0;
  return {
    type: about.type,
    category: about.category,
    priority: BigInt(about.priority),
    tags: about.tags,
    get data() {
      if (data === undefined) {
        const json = content === undefined ? undefined : fromBinary(ContentSchema, content).data;
        data = toCel(json ?? {}, meter);
      }
      return data;
    },
  };
}

/** As maps, because the library copies an object each time it is looked at, and takes a "constructor" in it for its own. */
function toCel(value: JsonValue, meter: Meter): unknown {
  meter.dataSize++;
  if (typeof value === "string") meter.dataSize += stepsOf(value);
  if (typeof value !== "object" || value === null) return value;
  if (Array.isArray(value)) return value.map((item) => toCel(item, meter));
  return new Map(Object.entries(value).map(([key, item]) => [key, toCel(item, meter)]));
}

/** What a look at every character costs beside a call: the slowest function copies them one by one. */
function stepsOf(text: string): number {
  return text.length >> 4;
}

/**
 * The library's functions, each of which pays before it runs: for the call, for the text it reads, for the items it goes
 * over, and where it compares two lists or maps, for all of the data. The library itself knows no limit.
 */
function meteredEnv(meter: Meter): CelEnv {
  const pay = (steps: number) => {
    meter.left -= steps;
    // Thrown, not given as a value that `||` may pass over: nothing goes on after it.
    if (meter.left < 0) throw new Error("takes too many steps");
  };
  const base = celEnv({ funcs: strings });
  const find = (name: string): Functions | undefined => {
    if (name === TICK) {
      return functions(name, (_id, _target, [turn]) => {
        pay(Number(turn));
        return true;
      });
    }
    if (name === ITEMS) {
      return functions(name, (id, _target, [items]) => {
        pay(sizeOf(items));
        return items ?? celError("nothing to go over", id);
      });
    }
    const known = base.funcs.find(name);
    if (known === undefined) return undefined;
    return functions(name, (id, target, args) => {
      pay(priceOf(target === undefined ? args : [target, ...args], meter));
      // Text and lists that grow are what memory could be filled with.
      if (name === "_+_" && args.some(isComposed)) return celError("texts and lists cannot be put together", id);
      return known.call(id, target, args);
    });
  };
  return Object.create(base, { funcs: { value: Object.create(base.funcs, { find: { value: find } }) } });
}

type Functions = NonNullable<ReturnType<CelEnv["funcs"]["find"]>>;

function functions(name: string, call: Functions["call"]): Functions {
  return { name, call, [Symbol.iterator]: () => [][Symbol.iterator]() };
}

function priceOf(operands: readonly unknown[], meter: Meter): number {
  const nested = operands.filter((operand) => isCelList(operand) || isCelMap(operand)).length;
  const compared = nested > 1 ? meter.dataSize : 0;
  return operands.reduce((sum: number, operand) => sum + sizeOf(operand), 1 + compared);
}

function sizeOf(value: unknown): number {
  if (typeof value === "string") return stepsOf(value);
  return isCelList(value) || isCelMap(value) ? value.size : 0;
}

function isComposed(value: unknown): boolean {
  return typeof value === "string" || isCelList(value) || isCelMap(value);
}

/** Errors are how the library says "missing", and a stack trace is most of what one costs. */
function withoutTraces<T>(work: () => T): T {
  const before = Error.stackTraceLimit;
  Error.stackTraceLimit = 0;
  try {
    return work();
  } finally {
    Error.stackTraceLimit = before;
  }
}
