import { timestampDate } from "@bufbuild/protobuf/wkt";
import { InvalidArgumentError } from "commander";
import fc from "fast-check";
import { expect, test } from "vitest";
import { Scope, ScopeSchema } from "#gen/posthorn/v1/admin_service_pb.ts";
import { Priority, PrioritySchema } from "#gen/posthorn/v1/notification_pb.ts";
import {
  duration,
  durationMs,
  enumValue,
  enumWord,
  enumWords,
  instant,
  jsonObject,
  several,
  wholeNumber,
} from "#src/cli/parse.ts";

const now = () => new Date("2026-03-01T12:00:00Z");

test.each([
  ["500ms", 500],
  ["30s", 30_000],
  ["1.5h", 5_400_000],
  ["7d", 604_800_000],
])("%s is a duration", (text, ms) => {
  expect(durationMs(text)).toBe(ms);
});

test.each(["", "5", "s", "-5s", "5 s", "5w", "1e3s", "5sx"])("%j is not a duration", (text) => {
  expect(() => durationMs(text)).toThrow(InvalidArgumentError);
});

test("a duration as a message loses nothing", () => {
  fc.assert(
    fc.property(fc.integer({ min: 0, max: 1e12 }), (ms) => {
      const { seconds, nanos } = duration(`${ms}ms`);
      expect(Number(seconds) * 1000 + nanos / 1e6).toBe(ms);
    }),
  );
});

test("an instant is counted from now or written with its zone", () => {
  const iso = (text: string) => timestampDate(instant(now)(text)).toISOString();
  expect(iso("+10m")).toBe("2026-03-01T12:10:00.000Z");
  expect(iso("2026-03-29T09:00:00+02:00")).toBe("2026-03-29T07:00:00.000Z");
  expect(iso("2026-03-29T09:00Z")).toBe("2026-03-29T09:00:00.000Z");
});

test.each(["2026-03-29T09:00", "tomorrow", "+", "2026-13-01T00:00Z"])("%j is not an instant", (text) => {
  expect(() => instant(now)(text)).toThrow(InvalidArgumentError);
});

test("enums are words, in any case and by the contract's own name", () => {
  expect(enumWords(PrioritySchema)).toEqual(["low", "normal", "high", "critical"]);
  expect(enumValue(PrioritySchema)("CRITICAL")).toBe(Priority.CRITICAL);
  expect(enumValue(ScopeSchema)("notifications-read")).toBe(Scope.NOTIFICATIONS_READ);
  expect(enumValue(ScopeSchema)("SCOPE_NOTIFICATIONS_READ")).toBe(Scope.NOTIFICATIONS_READ);
  expect(() => enumValue(PrioritySchema)("unspecified")).toThrow(/low, normal, high, critical/);
  expect(enumWord(PrioritySchema, 99)).toBe("99");
});

test("an option that may be given several times takes commas as well", () => {
  const tags = several((text) => text);
  expect(tags("c", tags("a, b", undefined))).toEqual(["a", "b", "c"]);
});

test("only JSON objects and whole numbers within bounds pass", () => {
  expect(jsonObject('{"a": 1}')).toEqual({ a: 1 });
  for (const text of ["[1]", "null", "1", "{"]) expect(() => jsonObject(text)).toThrow(InvalidArgumentError);
  expect(wholeNumber(1, 10)("10")).toBe(10);
  for (const text of ["0", "11", "1.5", "1e1", ""])
    expect(() => wholeNumber(1, 10)(text)).toThrow(InvalidArgumentError);
});
