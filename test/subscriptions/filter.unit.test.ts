import type { JsonObject } from "@bufbuild/protobuf";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { filterEvaluator } from "#src/subscriptions/evaluate.ts";
import { Kind, type Wish, wishesOf } from "#src/subscriptions/rules.ts";
import { FilterFault, vet } from "#src/subscriptions/vet.ts";
import { about } from "./about.ts";

const evaluator = filterEvaluator();
const data = { salary: 60_000, city: "Berlin", skills: ["Go", "TypeScript"], nothing: null, company: { size: 40 } };
const ask = (filter: string, of: JsonObject = data) => evaluator.ask([[filter]], about(of));
const refusal = (filter: string): string => {
  try {
    vet(filter);
    return "allowed";
  } catch (error) {
    if (error instanceof FilterFault) return error.message;
    throw error;
  }
};

describe("a filter", () => {
  test.each([
    'data.salary >= 50000 && data.city in ["Berlin", "Hamburg"]',
    'data.skills.exists(s, s.lowerAscii() == "go")',
    "data.skills.all(s, size(s) > 1) && size(data.skills) == 2",
    'data.skills.exists_one(s, s.startsWith("Type"))',
    'data["city"] == "Berlin" && data.skills[0] == "Go" && "city" in data',
    'priority >= 3 && type == "job_match" && category == "jobs"',
    '"remote" in tags && "topic:berlin" in tags',
    "has(data.city) && !has(data.country)",
    "data.nothing == null",
    "data.company.size * 2.0 < 81.0 && -data.salary < 0.0",
    'data.country == "DE" || data.city == "Berlin"',
    'data.city == "Berlin" ? data.salary > 1 : false',
    'data.city.contains("erl") && data.city.endsWith("in")',
  ])("%s", (filter) => {
    expect(refusal(filter)).toBe("allowed");
    expect(ask(filter)).toBe("match");
    expect(ask(`!(${filter})`)).toBe("no match");
  });

  test.each([
    ["something is missing", 'data.country == "DE"'],
    ["it gives no bool", "data.salary"],
    ["one of two is no bool", "has(data.city) ? 1 : true"],
    ["types do not go together", "data.city > 5"],
    ["text would be put together", 'data.city + "x" == "Berlinx"'],
    ["lists would be put together", "size(data.skills + data.skills) == 4"],
    ["there is no such item", 'data.skills[7] == "Go"'],
  ])("fails when %s", (_, filter) => {
    expect(refusal(filter)).toBe("allowed");
    expect(ask(filter)).toBe("failed");
  });

  test("finds data empty where there is none", () => {
    expect(evaluator.ask([["has(data.city)"]], about(undefined))).toBe("no match");
    expect(evaluator.ask([["size(data) == 0"]], about(undefined, { content: undefined }))).toBe("match");
  });

  test("sees data's own names, whatever they are", () => {
    const odd = JSON.parse('{"constructor": {"name": 1}, "__proto__": 2, "toString": "x"}') as JsonObject;
    expect(ask('data.constructor.name == 1 && data["__proto__"] == 2 && data.toString == "x"', odd)).toBe("match");
    expect(ask("has(data.hasOwnProperty) || has(data.valueOf)", odd)).toBe("no match");
  });

  test("that a newer server has stored fails, and nothing else with it", () => {
    expect(ask('data.city.matches("B.*")')).toBe("failed");
    expect(evaluator.ask([['data.city.matches("B.*")', "true"]], about(data))).toBe("match");
  });
});

describe("refused with the position", () => {
  test.each([
    ["data.a + (1", 'at character 8: "+" is not understood here'],
    ["", "is not complete"],
    ["data.a ++ 1", 'at character 8: "+" is not understood here'],
    ["date.city == 1", 'at character 1: there is no "date", only data, type, category, priority, tags'],
    ['data.city.matches("a")', 'at character 10: "matches" is not offered'],
    ["has(data)", "at character 1: has takes one field, such as has(data.city)"],
    ["has(data['city'])", "at character 1: has takes one field, such as has(data.city)"],
    ["🦊", 'at character 1: "🦊" is not understood here'],
    ["1", "gives an int, where a filter gives a bool"],
    ["'a' + 'b'", "gives a string, where a filter gives a bool"],
    ["data.a + data.b", "gives a number, where a filter gives a bool"],
    ["size(data.skills)", "gives an int, where a filter gives a bool"],
    ["tags", "gives a list, where a filter gives a bool"],
    ["priority > 2 ? 'yes' : null", "gives a string, where a filter gives a bool"],
    ["timestamp(data.at) > 1", 'at character 1: "timestamp" is not offered'],
    ["data.a.map(x, x) == []", "at character 7: map and filter are not offered"],
    ["data.a.filter(x, x) == []", "at character 7: map and filter are not offered"],
    ['{"a": 1}.a == 1', "at character 1: maps and messages are not offered"],
    ["google.protobuf.Int32Value{value: 1} == 1", "at character 1: maps and messages are not offered"],
    ['b"a" == b"a"', "at character 1: bytes are not offered"],
    ["[data, data] == [data, data]", "at character 2: lists may hold literals only"],
    ["data.a.exists(data, true)", 'at character 7: "data" is a name already taken'],
    ["data.a.exists(a, a.exists(b, b.exists(c, c)))", "at character 31: has more than 2 macros inside each other"],
    ["((((((((((( true )))))))))))", "at character 11: more than 10 brackets inside each other"],
    [Array(70).fill("priority == 1").join("||"), "at character 1001: has more than 200 nodes"],
  ])("%s", (filter, message) => {
    if (filter.length > 500) expect(refusal(filter)).toMatch(/^at character \d+: has more than 200 nodes$/);
    else expect(refusal(filter)).toBe(message);
  });
});

describe("subscriptions", () => {
  const groups = (...wishes: Wish[]) =>
    wishesOf(wishes, evaluator)?.groups({
      type: "job_match",
      category: "jobs",
      tags: ["x", "topic:berlin", "topic:go"],
    });

  test("none, and none that concern it, ask nothing", () => {
    expect(groups()).toBeUndefined();
    expect(groups([Kind.TYPE, "other", "false"], [Kind.CATEGORY, "job_match", "false"])).toEqual([]);
    expect(groups([Kind.TOPIC, "x", "false"], [Kind.TOPIC, "jobs", "false"])).toEqual([]);
  });
  test("to one target: one of them has to match, and one without a filter always does", () => {
    expect(groups([Kind.TYPE, "job_match", "a"], [Kind.TYPE, "job_match", "b"])).toEqual([["a", "b"]]);
    expect(groups([Kind.TYPE, "job_match", "a"], [Kind.TYPE, "job_match", ""])).toEqual([]);
  });
  test("to the type come before those to its category", () => {
    expect(groups([Kind.CATEGORY, "jobs", "c"], [Kind.TYPE, "job_match", "t"])).toEqual([["t"]]);
    expect(groups([Kind.CATEGORY, "jobs", "c"], [Kind.TYPE, "job_match", ""])).toEqual([]);
    expect(groups([Kind.CATEGORY, "jobs", "c"])).toEqual([["c"]]);
  });
  test("to topics stand beside them, and one topic is enough", () => {
    const topics: Wish[] = [
      [Kind.TOPIC, "berlin", "b"],
      [Kind.TOPIC, "go", "g"],
    ];
    expect(groups([Kind.TYPE, "job_match", "t"], ...topics)).toEqual([["t"], ["b", "g"]]);
    expect(groups(...topics, [Kind.TOPIC, "go", ""])).toEqual([]);
  });
  test("never do more than narrow: what passes with them passes without", () => {
    const filter = fc.constantFrom(
      "",
      "true",
      "false",
      "priority > 2",
      "priority < 3",
      "data.x",
      "priority > 3 || data.x",
    );
    const wish = fc.tuple(
      fc.constantFrom(Kind.TYPE, Kind.TOPIC, Kind.CATEGORY),
      fc.constantFrom("job_match", "jobs", "berlin", "go"),
      filter,
    );
    fc.assert(
      fc.property(fc.array(wish, { maxLength: 6 }), (wishes) => {
        const asked = wishesOf(wishes, evaluator);
        const of = about(data);
        const alone = (kind: Kind, key: string) => wishes.filter(([k, name]) => k === kind && name === key);
        const passes = (some: Wish[]) => some.length === 0 || some.some(([, , f]) => f === "" || ask(f) === "match");
        const type = alone(Kind.TYPE, "job_match");
        const model =
          passes(type.length > 0 ? type : alone(Kind.CATEGORY, "jobs")) && passes(alone(Kind.TOPIC, "berlin"));
        expect((asked?.ask(of) ?? "match") === "match").toBe(model);
      }),
    );
  });
});
