import { parse } from "@bufbuild/cel";

type Expr = NonNullable<ReturnType<typeof parse>["expr"]>;
type Comprehension = Extract<Expr["exprKind"], { case: "comprehensionExpr" }>["value"];

/** What is wrong with a filter, in words for its author. */
export class FilterFault extends Error {}

/** As the contract says, which also bounds its length. */
const MAX_NODES = 200;
const MAX_BRACKETS = 10;
const MAX_NESTED_MACROS = 2;
const CONDITION_NODES = 3;

export const VARIABLES: ReadonlySet<string> = new Set(["data", "type", "category", "priority", "tags"]);

/** Everything that can be called. What could be expensive is priced where it is run (evaluate.ts). */
const FUNCTIONS: ReadonlySet<string> = new Set([
  ...["_&&_", "_||_", "!_", "_==_", "_!=_", "_<_", "_<=_", "_>_", "_>=_", "@in", "_?_:_", "_[_]"],
  ...["_+_", "_-_", "_*_", "_/_", "_%_", "-_"],
  ...["size", "int", "double", "contains", "startsWith", "endsWith", "lowerAscii"],
]);

/** Put around loops by `vet`, run by evaluate.ts; no filter can name them. */
export const TICK = "@tick";
export const ITEMS = "@items";

/**
 * Parses a filter and makes sure that it holds only what the contract allows, all of which evaluate.ts can price: every
 * turn of a loop, and every list that one goes over, is made to pay first. Throws FilterFault, which says where.
 */
export function vet(text: string): Expr {
  checkBrackets(text);
  const { expr, sourceInfo } = parsed(text);
  if (expr === undefined) throw new FilterFault("is no expression");
  const refuse = (at: Expr, what: string): never => {
    throw new FilterFault(`at character ${(sourceInfo?.positions[String(at.id)] ?? 0) + 1}: ${what}`);
  };
  let nodes = 0;

  /** Answers how many nodes there are below and with `at`. */
  function walk(at: Expr, variables: ReadonlySet<string>, loops: number): number {
    if (++nodes > MAX_NODES) refuse(at, `has more than ${MAX_NODES} nodes`);
    const all = (some: readonly Expr[]) => some.reduce((sum, each) => sum + walk(each, variables, loops), 1);
    const { exprKind } = at;
    switch (exprKind.case) {
      case "constExpr":
        if (exprKind.value.constantKind.case === "bytesValue") refuse(at, "bytes are not offered");
        return 1;
      case "identExpr":
        if (!variables.has(exprKind.value.name)) {
          refuse(at, `there is no ${named(exprKind.value.name)}, only ${[...VARIABLES].join(", ")}`);
        }
        return 1;
      case "selectExpr":
        return all(exprKind.value.operand === undefined ? [] : [exprKind.value.operand]);
      case "callExpr": {
        const { function: name, target, args } = exprKind.value;
        if (name === "has" && target === undefined) refuse(at, "has takes one field, such as has(data.city)");
        if (!FUNCTIONS.has(name)) refuse(at, `${named(name)} is not offered`);
        return all(target === undefined ? args : [target, ...args]);
      }
      case "listExpr": {
        const { elements, optionalIndices } = exprKind.value;
        const other = elements.find((element) => element.exprKind.case !== "constExpr");
        if (other !== undefined || optionalIndices.length > 0) refuse(other ?? at, "lists may hold literals only");
        return all(elements);
      }
      case "comprehensionExpr":
        return loop(at, exprKind.value, variables, loops);
      default:
        return refuse(at, "maps and messages are not offered");
    }
  }

  function loop(at: Expr, value: Comprehension, variables: ReadonlySet<string>, loops: number): number {
    const { accuInit, iterRange, loopCondition, loopStep, result, iterVar, accuVar } = value;
    if (accuInit?.exprKind.case !== "constExpr") return refuse(at, "map and filter are not offered");
    if (loops === MAX_NESTED_MACROS) refuse(at, `has more than ${MAX_NESTED_MACROS} macros inside each other`);
    if (variables.has(iterVar)) refuse(at, `${named(iterVar)} is a name already taken`);
    if (iterRange === undefined || loopCondition === undefined || loopStep === undefined || result === undefined) {
      return refuse(at, "is no loop");
    }
    const range = walk(iterRange, variables, loops);
    const inside = new Set([...variables, iterVar, accuVar]);
    // The condition is the macro's own: whether there is a reason to go on.
    const turn = CONDITION_NODES + walk(loopStep, inside, loops + 1);
    const after = walk(result, inside, loops + 1);
    value.iterRange = call(ITEMS, iterRange);
    value.loopCondition = call("_&&_", call(TICK, literal(turn)), loopCondition);
    return 1 + range + turn + after;
  }

  walk(expr, VARIABLES, 0);
  const other = otherThanBool(expr);
  if (other !== undefined) throw new FilterFault(`gives ${other}, where a filter gives a bool`);
  return expr;
}

/** By name: variables, functions, and kinds of constants. */
const NO_BOOLS: Readonly<Record<string, string>> = {
  type: "a string",
  category: "a string",
  priority: "an int",
  tags: "a list",
  data: "a map",
  size: "an int",
  int: "an int",
  double: "a double",
  lowerAscii: "a string",
  "_-_": "a number",
  "_*_": "a number",
  "_/_": "a number",
  "_%_": "a number",
  "-_": "a number",
  int64Value: "an int",
  uint64Value: "a uint",
  doubleValue: "a double",
  stringValue: "a string",
  nullValue: "null",
};

/** What an expression gives whatever the data is, where that is no bool; undefined: it may give one. */
function otherThanBool({ exprKind }: Expr): string | undefined {
  switch (exprKind.case) {
    case "constExpr":
      return NO_BOOLS[exprKind.value.constantKind.case ?? ""];
    case "identExpr":
      return NO_BOOLS[exprKind.value.name];
    case "listExpr":
      return "a list";
    case "callExpr": {
      const { function: name, args } = exprKind.value;
      if (name === "_+_") return args.map(otherThanBool).find((type) => type !== undefined) ?? "a number";
      if (name !== "_?_:_") return NO_BOOLS[name];
      const [, then, otherwise] = args.map(otherThanBool);
      return otherwise === undefined ? undefined : then;
    }
    default:
      return undefined;
  }
}

function parsed(text: string): ReturnType<typeof parse> {
  try {
    return parse(text);
  } catch (error) {
    const { location, found } = error as { location?: { start?: { offset?: number } }; found?: string | null };
    const offset = location?.start?.offset ?? 0;
    // `found` may be half of a character.
    const character = found ? String.fromCodePoint(text.codePointAt(offset) ?? 0) : "";
    const what = found ? `${named(character)} is not understood here` : "is not complete";
    throw new FilterFault(offset >= text.length ? "is not complete" : `at character ${offset + 1}: ${what}`);
  }
}

/** The parser's time grows with the square of what is open, and it goes deeper with each: so before it. */
function checkBrackets(text: string): void {
  let open = 0;
  let quote = "";
  for (let at = 0; at < text.length; at++) {
    const character = text.charAt(at);
    if (quote !== "") {
      if (character === "\\") at++;
      else if (character === quote) quote = "";
    } else if (character === '"' || character === "'") quote = character;
    else if ("([{".includes(character)) open++;
    else if (")]}".includes(character)) open--;
    if (open > MAX_BRACKETS) {
      throw new FilterFault(`at character ${at + 1}: more than ${MAX_BRACKETS} brackets inside each other`);
    }
  }
}

function named(name: string): string {
  return `"${[...name].slice(0, 40).join("")}"`;
}

function call(name: string, ...args: Expr[]): Expr {
  return expression({ case: "callExpr", value: { $typeName: "cel.expr.Expr.Call", function: name, args } });
}

function literal(number: number): Expr {
  const constantKind = { case: "int64Value" as const, value: BigInt(number) };
  return expression({ case: "constExpr", value: { $typeName: "cel.expr.Constant", constantKind } });
}

function expression(exprKind: Expr["exprKind"]): Expr {
  return { $typeName: "cel.expr.Expr", id: 0n, exprKind };
}
