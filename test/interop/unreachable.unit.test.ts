import { expect, test } from "vitest";
import { isUnreachable } from "./unreachable.ts";

const never = () => Promise.reject(new Error("this was not to be asked"));
const answers = (there: boolean) => () => Promise.resolve(there);

test.each([
  "go: example.com/x@v1: dial tcp: lookup registry on 1.1.1.1:53: no such host",
  "NewConnectionError('<pip._vendor…>: Failed to establish a new connection')\nERROR: No matching distribution found",
  "[ERROR] Could not transfer artifact x:y:pom:1 from/to central: Unknown host",
])("a registry that could not be asked: %s", async (said) => {
  expect(await isUnreachable(said, never)).toBe(true);
});

test.each([
  "ERROR: No matching distribution found for grpcio==99.0",
  "[ERROR] Could not find artifact io.grpc:grpc-stub:jar:99.0 in central",
])("what is not there counts only if what is known to exist is not there either: %s", async (said) => {
  expect(await isUnreachable(said, answers(false))).toBe(true);
  expect(await isUnreachable(said, answers(true))).toBe(false);
});

test.each(["go: example.com/x@v99: invalid version: unknown revision v99", "error: cannot find symbol"])(
  "everything else is a failure: %s",
  async (said) => {
    expect(await isUnreachable(said, never)).toBe(false);
  },
);
