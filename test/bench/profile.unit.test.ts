import { expect, test } from "vitest";
import { type CpuProfile, selfTimes } from "./profile.ts";

const node = (id: number, functionName: string, url = "", lineNumber = 9) => ({
  id,
  callFrame: { functionName, url, lineNumber },
});

test("tells native functions apart by who called them", () => {
  const profile: CpuProfile = {
    nodes: [
      { ...node(1, "flush", "file:///work/src/rpc/grpc/server.ts"), children: [2] },
      { ...node(2, "write", "node:net"), children: [3] },
      node(3, "writeBuffer"),
    ],
    samples: [3, 2],
    timeDeltas: [3_000, 1_000],
  };
  expect(selfTimes(profile, "/work").functions).toEqual([
    { name: "writeBuffer  for flush  src/rpc/grpc/server.ts", ms: 3, share: 0.75 },
    { name: "write  node:net:10", ms: 1, share: 0.25 },
  ]);
});

test("times each function itself, over all places it was called from, and leaves out idling", () => {
  const profile: CpuProfile = {
    nodes: [
      node(1, "(idle)"),
      node(2, "route", "file:///work/src/pipeline/route/route.ts"),
      node(3, "route", "file:///work/src/pipeline/route/route.ts"),
      node(4, "encode", "file:///work/node_modules/@bufbuild/protobuf/dist/encode.js"),
      node(5, "(garbage collector)"),
      node(6, "post", "node:inspector"),
    ],
    samples: [1, 2, 3, 4, 5, 6, 2],
    timeDeltas: [9_000, 1_000, 2_000, 3_000, 1_000, 5_000, 3_000],
  };
  const { functions, packages } = selfTimes(profile, "/work");
  expect(functions).toEqual([
    { name: "route  src/pipeline/route/route.ts:10", ms: 6, share: 0.6 },
    { name: "encode  node_modules/@bufbuild/protobuf/dist/encode.js:10", ms: 3, share: 0.3 },
    { name: "(garbage collector)", ms: 1, share: 0.1 },
  ]);
  expect(packages.map(({ name, ms }) => [name, ms])).toEqual([
    ["src/pipeline/route", 6],
    ["@bufbuild/protobuf", 3],
    ["(garbage collector)", 1],
  ]);
});
