import type { JsonObject } from "@bufbuild/protobuf";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { filterEvaluator } from "#src/subscriptions/evaluate.ts";
import { FilterFault, vet } from "#src/subscriptions/vet.ts";
import { about } from "./about.ts";

// Users write filters and senders write data. Whatever they write, the event loop is not held for long. Times are of this
// thread's CPU, so that a busy machine does not count, and the best of a few, so that compiling to machine code does not.

/** What one notification may take, and what a filter may take to be read. On a quiet machine half of it is enough. */
const ASKED_MS = 12;
const READ_MS = 40;
const ROUNDS = 8;

function cpuMs(work: () => unknown): number {
  let best = Number.POSITIVE_INFINITY;
  for (let round = 0; round < ROUNDS; round++) {
    const before = process.threadCpuUsage();
    work();
    const { user, system } = process.threadCpuUsage(before);
    best = Math.min(best, (user + system) / 1000);
  }
  return best;
}

const many = (count: number, what: string, by: string) => Array.from({ length: count }, () => what).join(by);
/** As large as Content.data may be. */
const DATA: Record<string, JsonObject> = {
  numbers: { a: Array(8000).fill(1) },
  "empty objects": { a: Array.from({ length: 5000 }, () => ({})) },
  "one text": { a: "x".repeat(16_000) },
  "many texts": { a: Array(420).fill("x".repeat(35)) },
  names: { a: Object.fromEntries(Array.from({ length: 1800 }, (_, n) => [`n${n}`, n % 10])) },
  depth: { a: Array.from({ length: 200 }, () => [[[[[[[[[[[[[[1]]]]]]]]]]]]]]) },
};
const FILTERS = [
  "data.a.exists(x, data.a.exists(y, x == 7 && y == 8))",
  "data.a.all(x, data.a.all(y, x == x || y == y))",
  "data.a.all(x, x.missing)",
  "data.a.exists(x, x.a || x.b || x.c || x.d || x.e || x.f || x.g || x.h)",
  many(10, "data.a.all(x, x.a || x.b)", " || "),
  many(12, "data.a.exists_one(x, data == data)", " && "),
  many(45, "data == data", " && "),
  "data.a in data.a",
  "data.a.exists(x, x in data.a && data.a in data.a)",
  many(25, 'data.a.lowerAscii().contains("y")', " || "),
  many(10, 'data.a.exists(x, x.lowerAscii() == "y")', " || "),
  many(32, "size(data.a) > 3", " && "),
  many(16, "int(data.a) > 3 || double(data.a) > 3.0", " || "),
  "data.a.exists(x, [1, 2, 3] == [1, 2, 3] && tags == tags && !(x in tags))",
];

describe.each(Object.entries(DATA))("data of %s", (_, data) => {
  const evaluator = filterEvaluator();
  const of = about(data);
  test.each(FILTERS.map((filter) => [filter.slice(0, 60), filter]))("%s", (_start, filter) => {
    vet(filter);
    evaluator.prepare(filter);
    expect(cpuMs(() => evaluator.ask([[filter]], of))).toBeLessThan(ASKED_MS);
  });
  test("all of them together take no longer than the worst, because they pay from one purse", () => {
    for (const filter of FILTERS) evaluator.prepare(filter);
    expect(cpuMs(() => evaluator.ask([FILTERS, FILTERS, FILTERS], of))).toBeLessThan(ASKED_MS);
  });
});

describe("a text is read in a bounded time", () => {
  test.each([
    ["open brackets", "(".repeat(1000)],
    ["open brackets of all kinds", "([{".repeat(333)],
    ["brackets in quotes", `"${"(".repeat(990)}"`],
    ["a quote that does not end", `"${"(".repeat(990)}`],
    ["ors", many(250, "a", "||")],
    ["sums", many(400, "1", "+")],
    ["conditions", `${"a?b:".repeat(249)}a`],
    ["brackets and ors", "(((a||".repeat(160)],
    ["brackets and ands", `${"(".repeat(10)}${many(180, "a", "&&")}${")".repeat(10)}`],
    ["calls", many(120, "a.b()", "&&")],
    ["nots", `${"!".repeat(999)}a`],
    ["minuses", `${"-".repeat(999)}1`],
    ["indices", `a${"[0]".repeat(330)}`],
    ["names", `a${".a".repeat(499)}`],
    ["a list", `priority in [${many(450, "1", ",")}]`],
    ["macros", `${"data.a.exists(x,".repeat(9)}1${")".repeat(9)}`],
    ["faces", "😀".repeat(1000)],
  ])("%s", (_, text) => {
    const read = () => {
      try {
        vet(text);
      } catch (error) {
        if (!(error instanceof FilterFault)) throw error;
      }
    };
    expect(cpuMs(read)).toBeLessThan(READ_MS);
  });

  test("whatever it is, it is refused in words or can be asked", () => {
    const evaluator = filterEvaluator();
    const word = fc.constantFrom(
      ...["data", "tags", "priority", "type", ".a", ".exists(x,", "x", "(", ")", "[", "]", "&&", "||", "!", "==", "in"],
      ...[
        '"a"',
        "1",
        "1.5",
        "null",
        "?",
        ":",
        ",",
        "has(",
        "size(",
        "-",
        "+",
        "@tick",
        "`",
        "'",
        "\\",
        "//",
        "\n",
        "r'",
        "{",
      ],
    );
    const text = fc.oneof(
      fc.array(word, { maxLength: 40 }).map((words) => words.join(" ")),
      fc.string({ unit: "binary" }),
    );
    fc.assert(
      fc.property(text, (filter) => {
        try {
          vet(filter);
        } catch (error) {
          expect(error).toBeInstanceOf(FilterFault);
        }
        expect(["match", "no match", "failed"]).toContain(evaluator.ask([[filter]], about({ a: [1, "a", null] })));
      }),
      { numRuns: 200 },
    );
  });
});

test("no more filters are held ready than may be, and who was dropped is read again", () => {
  const evaluator = filterEvaluator(2);
  for (const priority of [1, 2, 3, 4, 3, 2, 1]) {
    const answer = evaluator.ask([[`priority == ${priority}`]], about({}));
    expect(answer).toBe(priority === 3 ? "match" : "no match");
  }
});
