import { expect, test } from "vitest";
import type { CpuProfile } from "./profile.ts";
import { turnLines } from "./turns.ts";

const node = (id: number, functionName: string, url = "", children: number[] = []) => ({
  id,
  callFrame: { functionName, url, lineNumber: 9 },
  children,
});

const ROUTE = "file:///work/src/pipeline/route.ts";
const SEND = "file:///work/src/rpc/send.ts";
const nodes: CpuProfile["nodes"] = [
  node(1, "(root)", "", [2, 3, 4, 6, 8]),
  node(2, "(idle)"),
  node(3, "(program)"),
  node(4, "onread", "node:net", [5]),
  node(5, "send", SEND),
  node(6, "processTimers", "node:timers", [7]),
  node(7, "route", ROUTE, [9]),
  node(8, "(garbage collector)"),
  node(9, "encode", "file:///work/node_modules/protobuf/src/encode.js"),
];

/** Of the samples each stands for the milliseconds behind it. */
function linesOf(samples: readonly [id: number, ms: number][], most?: number): string[] {
  const timeDeltas = [0, ...samples.map(([, ms]) => ms * 1000)];
  return turnLines({ nodes, samples: samples.map(([id]) => id), timeDeltas }, "/work", most);
}

test("a turn goes on while the loop is in the same callback, and is named by where most of it went", () => {
  expect(
    linesOf([
      [5, 2],
      [4, 1],
      [5, 7],
      [2, 50],
      [7, 3],
      [9, 3],
      [3, 1],
      [7, 4],
    ]),
  ).toEqual([
    "turns of 5 ms and more: 2, 80 % of the time; the longest 10 ms",
    "     1 of  10 ms  50 %  send src/rpc/send.ts:10",
    "     1 of   6 ms  30 %  route src/pipeline/route.ts:10",
  ]);
});

test("a turn ends where another callback begins, and not where garbage is collected within it", () => {
  expect(
    linesOf([
      [5, 4],
      [7, 4],
      [8, 4],
      [7, 2],
      [2, 1],
    ]),
  ).toEqual([
    "turns of 5 ms and more: 1, 71 % of the time; the longest 10 ms",
    "     1 of  10 ms  71 %  route src/pipeline/route.ts:10",
  ]);
});

test("turns of one cause are counted together, and only the costliest causes are told", () => {
  expect(
    linesOf(
      [
        [5, 6],
        [2, 1],
        [7, 20],
        [2, 1],
        [5, 8],
        [2, 1],
      ],
      1,
    ),
  ).toEqual([
    "turns of 5 ms and more: 3, 100 % of the time; the longest 20 ms",
    "     1 of  20 ms  59 %  route src/pipeline/route.ts:10",
  ]);
});
