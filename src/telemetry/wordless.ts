import { framesIn } from "./error-fields.ts";

const maxCauses = 5;

/** What is logged of an error whose words are somebody else's. */
export interface Wordless {
  /** The class, or which of the platform's own refusals it is. */
  readonly type: string;
  /** `ECONNRESET` and the like, or a provider's number: at most five digits, which no phone number and no code is. */
  readonly code?: string | number;
  /** HTTP's or SMTP's. */
  readonly status?: number;
  readonly stack?: string;
  readonly cause?: Wordless;
}

/**
 * What was thrown by somebody who was told content and addresses, and may say them again: a provider does, in whatever
 * words it likes ("number +49… is not valid"). No text of it comes through, only what our own code has named. Total.
 */
export function wordless(error: unknown, depth = 0): Wordless {
  try {
    return wordlessOf(error, depth);
  } catch {
    return { type: "Error" };
  }
}

function wordlessOf(error: unknown, depth: number): Wordless {
  if (!(error instanceof Error)) return { type: error === null ? "null" : typeof error };
  const { code, status, statusCode, responseCode } = error as Error &
    Partial<Record<"code" | "status" | "statusCode" | "responseCode", unknown>>;
  const told = [status, statusCode, responseCode].find((each) => isWhole(each, 100, 599));
  const stack = framesBelow(error);
  return {
    // A name can be set to anything; a class was written by somebody.
    type: error instanceof DOMException && /^(Abort|Timeout)Error$/.test(error.name) ? error.name : classOf(error),
    ...(isWhole(code, 0, 99_999) || isSymbol(code) ? { code } : {}),
    ...(typeof told === "number" ? { status: told } : {}),
    ...(stack === "" ? {} : { stack }),
    ...(error.cause !== undefined && depth < maxCauses ? { cause: wordless(error.cause, depth + 1) } : {}),
  };
}

function classOf(error: Error): string {
  const { name } = error.constructor;
  return /^[A-Za-z_$][\w$]{0,63}$/.test(name) ? name : "Error";
}

function isWhole(value: unknown, min: number, max: number): value is number {
  return Number.isInteger(value) && (value as number) >= min && (value as number) <= max;
}

/** Of Node and of undici. */
function isSymbol(code: unknown): code is string {
  return typeof code === "string" && /^(E|ERR_|UND_ERR_)[A-Z][A-Z_]{1,40}$/.test(code);
}

/** Only frames that stand behind all words: the lines of a message, or of a name, may look like frames. */
function framesBelow(error: Error): string {
  const { message, stack } = error;
  if (typeof message !== "string" || typeof stack !== "string") return "";
  const at = stack.lastIndexOf(`${message}\n    at `);
  return at < 0 ? "" : framesIn(stack.slice(at + message.length));
}
