import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { invalidField, invalidRequest } from "#src/errors.ts";
import { errorFields } from "#src/telemetry/error-fields.ts";
import { createLogger } from "#src/telemetry/logger.ts";
import { isForbidden, loggable } from "#src/telemetry/redact.ts";

// Whatever is thrown or logged comes out as one line that can be parsed, of bounded length, without what is forbidden.

const CANARY = "canary5f0c9e";
const MAX_LINE = 256 * 1024;

function lineOf(fields: object): string {
  const lines: string[] = [];
  const log = createLogger(
    { serviceName: "test", logLevel: "trace", logFormat: "json" },
    { write: (line) => lines.push(line) },
  );
  log.error(fields, "it happened");
  return lines.join("");
}

const throwing = () => {
  throw new Error(CANARY);
};

/** Objects that fight back when they are read. */
const fighters: Record<string, () => unknown> = {
  "an error that is its own cause": () => {
    const error = new Error("round");
    error.cause = error;
    return error;
  },
  "two errors that are each other's cause": () => {
    const error = new Error("a");
    error.cause = new Error("b", { cause: error });
    return error;
  },
  "an aggregate of itself": () => {
    const error = new AggregateError([], "all");
    error.errors.push(error, error, error, error, error);
    return error;
  },
  "aggregates of aggregates": () => {
    let error: Error = new Error("m".repeat(100_000));
    for (let depth = 0; depth < 8; depth++) error = new AggregateError(Array(20).fill(error), "all".repeat(1000));
    return error;
  },
  "a message that throws": () => Object.defineProperty(new Error("x"), "message", { get: throwing }),
  "a stack that throws": () => Object.defineProperty(new Error("x"), "stack", { get: throwing }),
  "a code that throws": () => Object.defineProperty(new Error("x"), "code", { get: throwing }),
  "a cause that throws": () => Object.defineProperty(new Error("x"), "cause", { get: throwing }),
  "a name that is no text": () => Object.assign(new Error("x"), { name: { toString: throwing } }),
  "a message that is no text": () => Object.assign(new Error("x"), { message: { toString: throwing } }),
  "a stack of lies": () =>
    Object.assign(new Error("x"), { stack: `Error: ${CANARY}\n${CANARY}\n    at ${"f".repeat(1e6)} (a.ts:1:1)` }),
  "a proxy that refuses all": () =>
    new Proxy({}, { get: throwing, ownKeys: throwing, getPrototypeOf: throwing, has: throwing }),
  "a proxy before an error": () => new Proxy(new Error("x"), { get: throwing }),
  "an object without a prototype": () => Object.assign(Object.create(null), { token: CANARY, a: 1n }),
  "a toJSON that throws": () => ({ toJSON: throwing }),
  "a toJSON that gives itself": () => {
    const value: { toJSON?: () => unknown } = {};
    value.toJSON = () => value;
    return value;
  },
  "a cycle": () => {
    const value: Record<string, unknown> = { a: 1 };
    value.self = [value, new Map([["again", value]])];
    return value;
  },
  "a revoked proxy": () => {
    const { proxy, revoke } = Proxy.revocable({}, {});
    revoke();
    return proxy;
  },
  "a driver's error": () =>
    Object.assign(new Error(`Failed query: select $1\nparams: ${CANARY}`), { query: "select $1", params: [CANARY] }),
  "Postgres that quotes a value": () =>
    Object.assign(new Error(`invalid input syntax for type uuid: "${CANARY}"`), {
      severity: "ERROR",
      code: "22P02",
      detail: CANARY,
      where: CANARY,
    }),
  "an invalid date": () => new Date(Number.NaN),
  "a million items": () => Array.from({ length: 1_000_000 }, () => "x".repeat(100)),
  "very wide and deep": () => {
    let value: unknown = "x".repeat(5000);
    for (let depth = 0; depth < 5; depth++)
      value = Object.fromEntries(Array.from({ length: 40 }, (_, n) => [`a${n}`, value]));
    return value;
  },
};

describe.each(Object.entries(fighters))("%s", (_, make) => {
  test("is told in a line", () => {
    const made = make();
    for (const fields of [{ err: made }, { thing: made }, { list: [made] }]) {
      const line = lineOf(fields);
      expect(JSON.parse(line)).toMatchObject({ msg: "it happened" });
      expect(line.length).toBeLessThan(MAX_LINE);
      expect(line).not.toContain(CANARY);
    }
  });
});

test("errors of any shape become fields that can be written", () => {
  const anything = fc.oneof(
    fc.anything({ withBigInt: true, withMap: true, withSet: true, withNullPrototype: true, withDate: true }),
  );
  fc.assert(
    fc.property(anything, anything, anything, (message, cause, more) => {
      const error = Object.assign(new Error("x", { cause }), { extra: more, code: more, name: message });
      expect(() => JSON.stringify(errorFields(error))).not.toThrow();
      expect(() => JSON.stringify(loggable({ error, more }))).not.toThrow();
      expect(() => JSON.stringify(errorFields(more))).not.toThrow();
    }),
  );
});

test("nothing under a forbidden name is printed, however deep and in whatever spelling", () => {
  const names = fc.constantFrom(
    "apiKey",
    "api_key",
    "X-Api-Key",
    "authorization",
    "title",
    "Body",
    "e-mail",
    "phone",
    "userToken",
    "set-cookie",
  );
  fc.assert(
    fc.property(names, fc.integer({ min: 0, max: 5 }), fc.boolean(), (name, depth, inMap) => {
      expect(isForbidden(name)).toBe(true);
      let value: unknown = inMap ? new Map([[name, CANARY]]) : { [name]: { deeper: CANARY } };
      for (let level = 0; level < depth; level++) value = level % 2 === 0 ? { inner: value } : [value];
      expect(lineOf({ value })).not.toContain(CANARY);
    }),
  );
});

test.each([
  ["a field", invalidField(`content.data.notes["${CANARY}"]`, `must not be ${CANARY} (own.rule)`), "content"],
  ["the request as a whole", invalidRequest([{ field: "", description: CANARY }]), "the request"],
  ["a field that nobody knows", invalidField(CANARY, "is unknown"), "the request"],
])("a refusal for %s is logged as what it is about, not in the words for who wrote it", (_, refusal, about) => {
  const wrapped = new Error("could not", { cause: refusal });
  for (const err of [refusal, wrapped]) expect(lineOf({ err })).not.toContain(CANARY);
  expect(errorFields(refusal)).toMatchObject({ type: "Fault", code: 3, message: `refused for what is in: ${about}` });
});
