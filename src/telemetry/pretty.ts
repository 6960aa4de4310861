/** Log lines for people, from the JSON lines that collectors get. */

const colours: Readonly<Record<string, number>> = { trace: 90, debug: 36, info: 32, warn: 33, error: 31, fatal: 35 };

/**
 * `12:00:00.000 WARN  lost the connection to NATS  tenant=acme`, an error's causes and frames on lines of their own.
 * What is not a JSON object comes out as it went in.
 */
export function prettyLine(line: string, colour: boolean): string {
  const record = parsed(line);
  if (record === undefined) return line;
  const { level, time, msg, err, service: _service, instance: _instance, ...fields } = record;
  const paint = (code: number, text: string) => (colour ? `\u001b[${code}m${text}\u001b[0m` : text);
  const name = String(level);
  const rest = Object.entries(fields).map(([key, value]) => `${paint(90, `${key}=`)}${plain(value)}`);
  const head = [
    paint(90, String(time).slice(11, 23)),
    paint(colours[name] ?? 0, name.toUpperCase().padEnd(5)),
    msg === undefined ? "" : printableText(String(msg)),
    ...(rest.length === 0 ? [] : ["", ...rest]),
  ];
  return `${head.join(" ").trimEnd()}\n${errorLines(err, "  ")
    .map((each) => `${each}\n`)
    .join("")}`;
}

function errorLines(error: unknown, indent: string): string[] {
  if (typeof error !== "object" || error === null) return [];
  const { type, message, code, stack, cause, errors } = error as Record<string, unknown>;
  const named = code === undefined ? String(type) : `${String(type)} ${String(code)}`;
  const frames =
    typeof stack === "string" ? stack.split("\n").map((frame) => `${indent}  ${printableText(frame)}`) : [];
  const inner = [...(cause === undefined ? [] : [cause]), ...(Array.isArray(errors) ? errors : [])];
  return [
    message === undefined ? `${indent}${named}` : `${indent}${named}: ${printableText(String(message))}`,
    ...frames,
    ...inner.flatMap((each) => errorLines(each, `${indent}  `)),
  ];
}

function parsed(line: string): Record<string, unknown> | undefined {
  try {
    const value: unknown = JSON.parse(line);
    return typeof value === "object" && value !== null && !Array.isArray(value) ? { ...value } : undefined;
  } catch {
    return undefined;
  }
}

function plain(value: unknown): string {
  return typeof value === "string" && /^[\w.:/@-]+$/.test(value) ? value : printableText(JSON.stringify(value));
}

/** Control characters could move the cursor or forge a line. */
function printableText(text: string): string {
  return text.replaceAll(/\p{Cc}/gu, (character) => `\\u${character.charCodeAt(0).toString(16).padStart(4, "0")}`);
}
