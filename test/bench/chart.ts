import { factor, type Result, standings } from "./summary.ts";

const WIDTH = 860;
const LABELS = 250;
const RIGHT = 110;
const ROW = 22;
const TOP = 64;
const GAP = 12;

/** Farther away than this is at the edge. */
const FURTHEST = 100;

/**
 * A picture of how we stand to each peer in each scenario, as an SVG of its own: bars to the right of the middle where we
 * are ahead, to the left where behind, on a logarithmic scale; readable on light and dark pages. Factors only, because
 * times of one machine say little on another.
 */
export function chart(results: readonly Result[]): string {
  const groups = results.map((result) => ({ result, all: standings(result) })).filter(({ all }) => all.length > 0);
  const height = TOP + groups.reduce((sum, { all }) => sum + all.length * ROW + GAP, 0) + 8;
  const middle = LABELS + (WIDTH - LABELS - RIGHT) / 2;
  const reach = (WIDTH - LABELS - RIGHT) / 2;
  const x = (advantage: number) => {
    const within = Math.min(Math.max(advantage, 1 / FURTHEST), FURTHEST);
    return middle + (Math.log(within) / Math.log(FURTHEST)) * reach;
  };
  const parts: string[] = [];
  for (const tick of [1 / 100, 1 / 10, 1, 10, 100]) {
    const at = round(x(tick));
    parts.push(
      `<line class="${tick === 1 ? "axis" : "grid"}" x1="${at}" y1="${TOP - 12}" x2="${at}" y2="${height - 8}"/>`,
    );
    const label = tick === 1 ? "as good" : tick > 1 ? `${tick}× ahead` : `${Math.round(1 / tick)}× behind`;
    parts.push(`<text class="quiet" x="${at}" y="${TOP - 20}" text-anchor="middle">${label}</text>`);
  }
  let y = TOP;
  for (const { result, all } of groups) {
    const { figure = "" } = result.compared ?? {};
    parts.push(`<text class="name" x="8" y="${y + 15}">${escaped(result.scenario)}</text>`);
    for (const { peer, advantage } of all) {
      const [from, to] = [Math.min(middle, x(advantage)), Math.max(middle, x(advantage))];
      const ahead = advantage >= 1;
      parts.push(
        `<text class="quiet" x="${LABELS - 8}" y="${y + 15}" text-anchor="end">${escaped(peer)}</text>`,
        `<rect class="${ahead ? "ahead" : "behind"}" x="${round(from)}" y="${y + 3}" width="${round(Math.max(to - from, 1))}" height="${ROW - 6}" rx="2"><title>${escaped(`${result.scenario}, ${figure}: ${factor(advantage)} of ${peer}`)}</title></rect>`,
        // Always to the right, where the name of no peer is.
        `<text x="${round(Math.max(to, middle) + 5)}" y="${y + 15}">${factor(advantage)}</text>`,
      );
      y += ROW;
    }
    y += GAP;
  }
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${height}" width="${WIDTH}" height="${height}" role="img" aria-label="Posthorn beside its peers, by scenario">
<style>
  text { font: 13px system-ui, sans-serif; fill: #1f2328; }
  .title { font-weight: 600; font-size: 15px; }
  .name { font-weight: 600; }
  .quiet { fill: #59636e; font-size: 12px; }
  .grid { stroke: #d1d9e0; } .axis { stroke: #59636e; }
  .ahead { fill: #2da44e; } .behind { fill: #d4722c; }
  @media (prefers-color-scheme: dark) {
    text { fill: #f0f6fc; } .quiet { fill: #9198a1; }
    .grid { stroke: #3d444d; } .axis { stroke: #9198a1; }
    .ahead { fill: #3fb950; } .behind { fill: #db8b4a; }
  }
</style>
<text class="title" x="8" y="20">Posthorn beside its peers, on the same machine in the same run</text>
${parts.join("\n")}
</svg>
`;
}

function round(value: number): number {
  return Math.round(value * 10) / 10;
}

function escaped(text: string): string {
  return text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");
}
