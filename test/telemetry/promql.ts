import { parser } from "@prometheus-io/lezer-promql";

/** What an expression asks of one metric. */
export type Use = {
  metric: string;
  /** Labels it is selected by, with their operator and value. */
  matchers: { label: string; op: string; value: string }[];
  /** Labels it is grouped by, by the aggregations around it. */
  grouping: string[];
  /** Functions and operators around it, the nearest first. */
  within: string[];
};

/** Every metric that an expression names. Throws when it is not PromQL. */
export function usesOf(expression: string): Use[] {
  const text = (node: { from: number; to: number } | null) =>
    node === null ? "" : expression.slice(node.from, node.to);
  const uses: Use[] = [];
  const tree = parser.parse(expression);
  tree.iterate({
    enter(cursor) {
      if (cursor.type.isError) throw new Error(`not PromQL at ${cursor.from}: ${expression}`);
      if (cursor.name !== "VectorSelector") return;
      const { node } = cursor;
      const use: Use = { metric: text(node.getChild("Identifier")), matchers: [], grouping: [], within: [] };
      for (const matcher of node.getChild("LabelMatchers")?.getChildren("UnquotedLabelMatcher") ?? [])
        use.matchers.push({
          label: text(matcher.getChild("LabelName")),
          op: text(matcher.getChild("MatchOp")),
          value: text(matcher.getChild("StringLiteral")).slice(1, -1),
        });
      for (let parent = node.parent; parent !== null; parent = parent.parent) {
        if (parent.name === "FunctionCall") use.within.push(text(parent.getChild("FunctionIdentifier")));
        if (parent.name !== "AggregateExpr") continue;
        use.within.push(text(parent.getChild("AggregateOp")));
        const labels = parent.getChild("AggregateModifier")?.getChild("GroupingLabels")?.getChildren("LabelName") ?? [];
        use.grouping.push(...labels.map(text));
      }
      uses.push(use);
    },
  });
  if (uses.length === 0) throw new Error(`names no metric: ${expression}`);
  return uses;
}
