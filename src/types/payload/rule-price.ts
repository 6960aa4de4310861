import { parse } from "@bufbuild/cel";
import { DescriptorFault, named } from "./descriptor-fault.ts";

type Expr = NonNullable<ReturnType<typeof parse>["expr"]>;

/** What it takes to ask a rule: so much for each unit of what it is about, and so much for each pair of them. */
export type Price = { readonly linear: number; readonly square: number };

export const FREE: Price = { linear: 0, square: 0 };

const MAX_EXPRESSION = 2_000;
const MAX_NODES = 200;
const MAX_BRACKETS = 20;
const MAX_PATTERN = 1_000;
const MAX_STATES = 2_000;

/** The price of a CEL expression of a rule, by its nodes. `at` names where it stands. Throws DescriptorFault. */
export function priceOfExpression(expression: string, at: string): Price {
  if (expression.length > MAX_EXPRESSION) {
    throw new DescriptorFault(`${at}: an expression of a rule is longer than ${MAX_EXPRESSION} characters`);
  }
  checkBrackets(expression, at);
  const expr = parsed(expression, at);
  let nodes = 0;
  let square = 0;
  let patterns = 0;
  /** `outer`: names that stand for something that does not get smaller with each turn of a loop. */
  const walk = (node: Expr | undefined, inner: ReadonlySet<string> | undefined): void => {
    if (node === undefined) return;
    if (++nodes > MAX_NODES)
      throw new DescriptorFault(`${at}: an expression of a rule has more than ${MAX_NODES} nodes`);
    const { exprKind } = node;
    switch (exprKind.case) {
      case "identExpr":
        if (inner !== undefined && !inner.has(exprKind.value.name)) square++;
        return;
      case "selectExpr":
        walk(exprKind.value.operand, inner);
        return;
      case "callExpr": {
        const { function: name, target, args } = exprKind.value;
        if (name === "matches") patterns += priceOfPattern(literalOf(args.at(-1), at), at);
        walk(target, inner);
        for (const each of args) walk(each, inner);
        return;
      }
      case "listExpr":
        for (const each of exprKind.value.elements) walk(each, inner);
        return;
      case "structExpr":
        throw new DescriptorFault(`${at}: an expression of a rule makes a map or a message`);
      case "comprehensionExpr": {
        const { iterRange, accuInit, loopCondition, loopStep, result, iterVar, accuVar } = exprKind.value;
        if (inner !== undefined) throw new DescriptorFault(`${at}: an expression of a rule has a macro inside another`);
        walk(iterRange, inner);
        walk(accuInit, inner);
        const names = new Set([iterVar, accuVar]);
        walk(loopCondition, names);
        walk(loopStep, names);
        walk(result, inner);
        return;
      }
    }
  };
  walk(expr, undefined);
  return { linear: nodes + patterns, square: square > 0 ? nodes + patterns : 0 };
}

/** Of a regular expression (RE2), by the states it has. `at` names where it stands. Throws DescriptorFault. */
export function priceOfPattern(pattern: string, at: string): number {
  const states = pattern.length > MAX_PATTERN ? Number.POSITIVE_INFINITY : statesOf(pattern);
  if (states > MAX_STATES) throw new DescriptorFault(`${at}: a pattern is too large`);
  return states;
}

/** At least as many as an automaton has that counts by repeating. Patterns that make no sense are counted somehow. */
function statesOf(pattern: string): number {
  const open = [0];
  let last = 0;
  for (let at = 0; at < pattern.length; at++) {
    const character = pattern.charAt(at);
    const top = open.length - 1;
    if (character === "(") open.push(0);
    else if (character === ")" && top > 0) {
      last = open.pop() ?? 0;
      open[top - 1] = (open[top - 1] ?? 0) + last;
    } else if (character === "{") {
      const [whole, least = "", , most = ""] = /^\{(\d+)(,(\d*))?\}/.exec(pattern.slice(at)) ?? [];
      if (whole === undefined) continue;
      const more = last * Math.max(Number(least), Number(most), 1);
      open[top] = (open[top] ?? 0) + more;
      last += more;
      at += whole.length - 1;
    } else {
      if (character === "\\") at++;
      else if (character === "[") at = endOfClass(pattern, at);
      last = 1;
      open[top] = (open[top] ?? 0) + 1;
    }
  }
  return open.reduce((sum, each) => sum + each, 0);
}

function endOfClass(pattern: string, start: number): number {
  for (let at = start + 1; at < pattern.length; at++) {
    if (pattern.charAt(at) === "\\") at++;
    else if (pattern.charAt(at) === "]" && at > start + 1) return at;
  }
  return pattern.length;
}

/** A pattern that is put together from what is checked could be any. */
function literalOf(node: Expr | undefined, at: string): string {
  const constant = node?.exprKind.case === "constExpr" ? node.exprKind.value.constantKind : undefined;
  if (constant?.case === "stringValue") return constant.value;
  throw new DescriptorFault(`${at}: matches() needs a pattern that stands in the expression`);
}

function parsed(expression: string, at: string): Expr | undefined {
  try {
    return parse(expression).expr;
  } catch {
    throw new DescriptorFault(`${at}: ${named(expression)} is no expression of CEL`);
  }
}

/** The parser's time grows with the square of what is open, and it goes deeper with each: so before it. */
function checkBrackets(text: string, at: string): void {
  let open = 0;
  for (const character of text) {
    if ("([{".includes(character)) open++;
    else if (")]}".includes(character)) open--;
    if (open > MAX_BRACKETS) throw new DescriptorFault(`${at}: more than ${MAX_BRACKETS} brackets inside each other`);
  }
}
