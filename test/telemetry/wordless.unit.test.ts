import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { createLogger } from "#src/telemetry/logger.ts";
import { wordless } from "#src/telemetry/wordless.ts";

// Of what a provider says, a log keeps what our own code has named.

const CANARY = "Canary5f0c9e";

class ProviderError extends Error {}

test("class, code, status, frames and causes stay", () => {
  const cause = Object.assign(new TypeError("fetch failed"), { code: "UND_ERR_CONNECT_TIMEOUT" });
  const error = Object.assign(new ProviderError(`${CANARY} is not valid`, { cause }), {
    code: 21_211,
    statusCode: 400,
  });
  expect(wordless(error)).toEqual({
    type: "ProviderError",
    code: 21_211,
    status: 400,
    stack: expect.stringMatching(/^at .*wordless\.unit\.test\.ts:\d+:\d+/),
    cause: { type: "TypeError", code: "UND_ERR_CONNECT_TIMEOUT", stack: expect.stringContaining("wordless") },
  });
  expect(wordless(AbortSignal.timeout(0).reason ?? new DOMException("late", "TimeoutError"))).toMatchObject({
    type: "TimeoutError",
  });
});

describe("no text of it does", () => {
  const said: [string, unknown][] = [
    ["a text", CANARY],
    ["an object", { message: CANARY, code: CANARY }],
    ["a message", new Error(CANARY)],
    [
      "a message with lines like frames",
      new Error(`refused\n    at ${CANARY} (file:///x.js:1:1)\n    at ${CANARY}:2:2`),
    ],
    ["a name", Object.assign(new Error("refused"), { name: CANARY })],
    ["the name of a DOMException", new DOMException("refused", CANARY)],
    ["a code", Object.assign(new Error("refused"), { code: CANARY })],
    ["a phone number for a code", Object.assign(new Error("refused"), { code: 4_915_199_887 })],
    ["the digits of one", Object.assign(new Error("refused"), { code: "4915199887", status: 4_915_199_887 })],
    ["a cause", new Error("refused", { cause: { cause: new Error(CANARY) } })],
    ["a cause that is an error", new Error("refused", { cause: new Error(CANARY) })],
    ["many errors", new AggregateError([new Error(CANARY)], CANARY)],
    ["properties", Object.assign(new Error("refused"), { response: { body: CANARY }, to: CANARY })],
  ];
  test.each(said)("%s", (_, error) => {
    for (const logFormat of ["json", "pretty"] as const) {
      const lines: string[] = [];
      const config = { serviceName: "test", logLevel: "trace", logFormat } as const;
      createLogger(config, { write: (line) => lines.push(line) }).warn({ err: wordless(error) }, "refused");
      expect(lines.join("")).toContain("refused");
      expect(lines.join("")).not.toMatch(/Canary5f0c9e|4915199887/);
    }
  });
});

test("whatever is thrown becomes fields that can be written, without any of its texts", () => {
  const canaries = fc.constantFrom(CANARY, `E_${CANARY}`, `${CANARY}\n    at ${CANARY} (file:///a.ts:1:2)`);
  const fields = fc.record({ name: canaries, code: canaries, status: canaries, cause: fc.anything() });
  fc.assert(
    fc.property(canaries, fields, (message, more) => {
      expect(JSON.stringify(wordless(Object.assign(new Error(message), more)))).not.toContain(CANARY);
    }),
  );
});

test("what cannot even be read is an error", () => {
  const fighting = new Proxy(new Error(CANARY), {
    get() {
      throw new Error(CANARY);
    },
  });
  expect(wordless(fighting)).toEqual({ type: "Error" });
});
