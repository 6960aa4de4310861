import { expect, test } from "vitest";
import { coresBetween, microsecondsEach } from "./processes.ts";

const before = new Map([
  ["server", 10],
  ["client", 5],
  ["elsewhere", 100],
  ["stolen", 1],
]);
const after = new Map([
  ["server", 12],
  ["postgres", 1],
  ["client", 9],
  ["elsewhere", 101],
  ["stolen", 1],
]);

test("cores are processor time by time, the busiest first", () => {
  expect(Object.entries(coresBetween(before, after, 4))).toEqual([
    ["client", 1],
    ["server", 0.5],
    ["postgres", 0.25],
    ["elsewhere", 0.25],
  ]);
});

test("the time for each is that of the system, without the load client and what is not ours", () => {
  expect(microsecondsEach(before, after, 100_000)).toEqual({ server: 20, postgres: 10 });
});
