import { type ClientHttp2Session, connect } from "node:http2";
import { join } from "node:path";
import type { DescMethod } from "@bufbuild/protobuf";
import fc from "fast-check";
import type { Answer, Outgoing } from "./answer.ts";
import { callEveryMethod } from "./every-method.ts";
import { judge } from "./judge.ts";
import { overConnect } from "./over-connect.ts";
import { overGrpc } from "./over-grpc.ts";
import { overGrpcWeb } from "./over-grpc-web.ts";
import { type Step, sequences } from "./steps.ts";
import { shapeToBinary } from "./to-binary.ts";
import { shapeToJson } from "./to-json.ts";
import { openWorld, type Target, type World } from "./world.ts";

export type FuzzOptions = {
  seed: number;
  /** Sequences of up to `length` calls, after every method was called by itself. */
  runs: number;
  length?: number;
  /** For the sequences: ends before all runs are done. */
  withinMs?: number;
  patienceMs?: number;
};

/** A defect, with the shortest sequence that was found to show it. */
export type Finding = { problem: string; seed: number; path: string | null; steps: object[] };

export type Report = {
  calls: number;
  byOutcome: Record<string, number>;
  /** Those that succeeded, by "Service.Method"; 0 for a method of which none did. */
  byMethod: Record<string, number>;
  findings: Finding[];
};

const SHRINKS = 150;

/** The program to fuzz: its world sends to outside channels as well. */
export const WITH_CHANNELS = [join(import.meta.dirname, "node-with-channels.ts")];

/**
 * Calls every method by itself, then all in random sequences, and judges every answer. A finding is made as small as can
 * be, and then looked past, so that one run tells of many.
 */
export async function fuzz(target: Target, options: FuzzOptions): Promise<Report> {
  const { seed, runs, length = 6, withinMs = Number.POSITIVE_INFINITY, patienceMs = 20_000 } = options;
  await using lines = openLines(target);
  const world = await openWorld(target);
  const report: Report = { calls: 0, byOutcome: {}, byMethod: {}, findings: [] };
  const known = new Set<string>();
  let done = 0;
  let shrinks = 0;

  const call = async (step: Step): Promise<{ answer: Answer; problems: string[] }> => {
    const outgoing = outgoingOf(step, world, patienceMs);
    const answer = await lines.send(step, outgoing);
    count(report, step, answer);
    for (const message of answer.messages) world.learn(step.method, message);
    return { answer, problems: judge(answer, outgoing).map((problem) => `${nameOf(step.method)}: ${problem}`) };
  };

  const callAlone = async (step: Step) => {
    const { answer, problems } = await call(step);
    for (const problem of problems) {
      if (known.has(kindOf(problem))) continue;
      known.add(kindOf(problem));
      report.findings.push({ problem, seed, path: null, steps: [readable(step, world)] });
    }
    return answer;
  };
  await callEveryMethod(seed, callAlone, world.mend);

  const until = performance.now() + withinMs;
  const play = async (steps: Step[]): Promise<void> => {
    if (performance.now() > until || shrinks > SHRINKS) return;
    await world.mend();
    const under: Promise<void>[] = [];
    const problems: string[] = [];
    for (const step of steps) {
      if (!step.together) await Promise.all(under.splice(0));
      under.push(
        call(step).then((called) => {
          problems.push(...called.problems);
        }),
      );
    }
    await Promise.all(under);
    const fresh = problems.find((problem) => !known.has(kindOf(problem)));
    if (shrinks > 0) shrinks++;
    if (fresh === undefined) {
      done += shrinks > 0 ? 0 : 1;
      return;
    }
    if (shrinks === 0) shrinks = 1;
    throw new Error(fresh);
  };

  while (done < runs && performance.now() < until) {
    shrinks = 0;
    const result = await fc.check(fc.asyncProperty(sequences(length), play), {
      seed: seed + done,
      numRuns: runs - done,
    });
    if (!result.failed) break;
    const problem = String((result.errorInstance as Error | null)?.message ?? result.errorInstance);
    known.add(kindOf(problem));
    const steps = (result.counterexample?.[0] ?? []).map((step) => readable(step, world));
    report.findings.push({ problem, seed: result.seed, path: result.counterexamplePath, steps });
    done++;
  }
  return report;
}

/** The connections to both ports; a broken one is made anew. */
function openLines({ grpcUrl, httpUrl }: Target) {
  const sessions = new Map<string, ClientHttp2Session>();
  const session = (url: string) => {
    const open = sessions.get(url);
    if (open !== undefined && !open.destroyed && !open.closed) return open;
    // Node refuses answers (ENHANCE_YOUR_CALM) while more than 10 MB of requests wait to be sent, and some here are larger.
    const fresh = connect(url, { maxSessionMemory: 1024 });
    fresh.on("error", () => undefined);
    // The server may ask a connection to go; what is under way on it still ends there.
    fresh.on("goaway", () => sessions.delete(url));
    sessions.set(url, fresh);
    return fresh;
  };
  const once = ({ transport }: Step, outgoing: Outgoing): Promise<Answer> => {
    switch (transport) {
      case "grpc":
        return overGrpc(session(`http://${grpcUrl}`), outgoing);
      case "grpc-http":
        return overGrpc(session(httpUrl), outgoing);
      case "grpc-web":
      case "grpc-web-json":
        return overGrpcWeb(httpUrl, outgoing);
      case "connect-get":
        return overConnect(httpUrl, "json", true, outgoing);
      default:
        return overConnect(httpUrl, transport === "connect-json" ? "json" : "proto", false, outgoing);
    }
  };
  return {
    async send(step: Step, outgoing: Outgoing): Promise<Answer> {
      const answer = await once(step, outgoing);
      // An idle connection may be closed while a request is on its way. What breaks by its own fault does so again.
      const closed = answer.outcome === "broken" && answer.words.includes("other side closed");
      return closed ? once(step, outgoing) : answer;
    },
    async [Symbol.asyncDispose]() {
      for (const open of sessions.values()) open.destroy();
    },
  };
}

function outgoingOf(step: Step, world: World, patienceMs: number): Outgoing {
  const bodies = bodiesOf(step, world).map((body) => step.mutation.apply(body));
  const headers = { ...world.headersOf(step.caller), ...step.headers };
  return { method: step.method, bodies, form: isJson(step) ? "json" : "binary", headers, patienceMs };
}

function isJson({ transport }: Pick<Step, "transport">): boolean {
  return transport === "connect-json" || transport === "connect-get" || transport === "grpc-web-json";
}

function bodiesOf({ shapes, transport }: Step, world: World): Uint8Array[] {
  const json = isJson({ transport });
  const now = Date.now();
  return shapes.map((shape) =>
    json ? Buffer.from(shapeToJson(shape, world.resolve, now)) : shapeToBinary(shape, world.resolve, now),
  );
}

function count(report: Report, { method }: Step, { outcome }: Answer): void {
  report.calls++;
  report.byOutcome[outcome] = (report.byOutcome[outcome] ?? 0) + 1;
  report.byMethod[nameOf(method)] = (report.byMethod[nameOf(method)] ?? 0) + (outcome === 0 ? 1 : 0);
}

/** "SendService.Send" */
export function nameOf({ parent, name }: DescMethod): string {
  return `${parent.name}.${name}`;
}

/** Problems that differ only in numbers and quoted text are one. */
function kindOf(problem: string): string {
  return problem.replaceAll(/"[^"]*"|'[^']*'|\d+/g, "…").slice(0, 120);
}

function readable(step: Step, world: World): object {
  const { method, transport, caller, headers, mutation } = step;
  const bytes = bodiesOf({ ...step, transport: "grpc" }, world).map((body) => Buffer.from(mutation.apply(body)));
  return {
    method: `${method.parent.typeName}/${method.name}`,
    transport,
    caller,
    headers,
    mutation: mutation.name,
    json: step.shapes.map((shape) => shapeToJson(shape, world.resolve, Date.now()).slice(0, 2000)),
    hex: bytes.map((each) => each.subarray(0, 500).toString("hex")),
  };
}
