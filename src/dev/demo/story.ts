import { stripVTControlCharacters, styleText } from "node:util";

/** What the demo tells while it runs: numbered steps, and under each what was really seen, with its time. */
export type Story = {
  /** Runs one step; a failed one is told and counted, and the demo goes on with the next. */
  step(title: string, run: () => Promise<void>): Promise<void>;
  /** Something was seen, `ms` after what caused it. */
  saw(text: string, ms?: number): void;
  /** Background to what follows. */
  say(text: string): void;
  table(rows: readonly (readonly string[])[]): void;
  result(): { steps: number; seen: number; failed: string[] };
};

const WIDTH = 96;

export function tell(write: (line: string) => void, colour: boolean): Story {
  const paint = (style: Parameters<typeof styleText>[0], text: string) =>
    colour ? styleText(style, text, { validateStream: false }) : text;
  let steps = 0;
  let seen = 0;
  const failed: string[] = [];
  return {
    async step(title, run) {
      steps++;
      write("");
      write(`${paint(["bold", "cyan"], String(steps).padStart(2))}  ${paint("bold", title)}`);
      try {
        await run();
      } catch (error) {
        failed.push(title);
        const text = error instanceof Error ? error.message : String(error);
        write(`    ${paint("red", "✗")} ${paint("red", text)}`);
        if (error instanceof Error && !(error instanceof NotShown)) write(paint("dim", error.stack ?? ""));
      }
    },
    saw(text, ms) {
      seen++;
      const left = `    ${paint("green", "✓")} ${text}`;
      if (ms === undefined) return write(left);
      const time = `${ms < 100 ? ms.toFixed(1) : Math.round(ms).toLocaleString("en")} ms`;
      const gap = WIDTH - stripVTControlCharacters(left).length - time.length;
      write(`${left} ${" ".repeat(Math.max(gap, 1))}${paint("yellow", time)}`);
    },
    say(text) {
      write(`    ${paint("dim", text)}`);
    },
    table(rows) {
      const widths: number[] = [];
      for (const row of rows) for (const [i, cell] of row.entries()) widths[i] = Math.max(widths[i] ?? 0, cell.length);
      for (const row of rows) {
        const cells = row.map((cell, i) =>
          /^[\d,.]+( ms)?$/.test(cell) ? cell.padStart(widths[i] ?? 0) : cell.padEnd(widths[i] ?? 0),
        );
        write(`      ${cells.join("   ").trimEnd()}`);
      }
    },
    result: () => ({ steps, seen, failed }),
  };
}

/** Ends the step as failed unless it holds. */
export function must(holds: boolean, whatElse: string): asserts holds {
  if (!holds) throw new NotShown(whatElse);
}

/** What the step was to show did not happen. */
class NotShown extends Error {}
