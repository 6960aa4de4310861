export type Family = { type: string; help: string; samples: Sample[] };
export type Sample = { name: string; labels: Record<string, string>; value: number };

/** What `/metrics` says, by the name that its TYPE line gives. Fails on a line that is neither comment nor sample. */
export async function scrape(httpUrl: string): Promise<Map<string, Family>> {
  const text = await (await fetch(`${httpUrl}/metrics`)).text();
  const families = new Map<string, Family>();
  let current: Family | undefined;
  for (const line of text.split("\n")) {
    const [, kind, name = "", rest = ""] = /^# (HELP|TYPE) (\S+) (.*)$/.exec(line) ?? [];
    if (kind === "HELP") {
      current = { type: "", help: rest, samples: [] };
      families.set(name, current);
    } else if (kind === "TYPE" && current !== undefined) current.type = rest;
    else if (line !== "") current?.samples.push(sampleOf(line));
  }
  return families;
}

function sampleOf(line: string): Sample {
  const found = /^([a-zA-Z_:][\w:]*)(?:\{(.*)\})? (\S+)$/.exec(line);
  if (found === null) throw new Error(`not a sample: ${line}`);
  const [, name = "", inner = "", value = ""] = found;
  const labels = Object.fromEntries(
    [...inner.matchAll(/(\w+)="((?:[^"\\]|\\.)*)"/g)].map(([, key, text]) => [key, text]),
  );
  return { name, labels, value: Number(value) };
}
