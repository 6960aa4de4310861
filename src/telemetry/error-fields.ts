/** Errors as log fields. Drivers put the caller's values into messages and properties; none of those come through. */

const maxCauses = 5;
const maxMessage = 1_000;

export interface ErrorFields {
  readonly type: string;
  readonly message: string;
  readonly code?: string | number;
  /** Names in the schema, for errors of Postgres. */
  readonly table?: string;
  readonly column?: string;
  readonly constraint?: string;
  /** Frames only: the first lines of `Error.stack` repeat the message. */
  readonly stack?: string;
  readonly cause?: ErrorFields;
  readonly errors?: readonly ErrorFields[];
}

/** Whatever was thrown, with its causes. Total: never throws, even where a property of the error does. */
export function errorFields(error: unknown, depth = 0): ErrorFields {
  try {
    return fieldsOf(error, depth);
  } catch {
    return { type: "Error", message: "[an error that cannot be read]" };
  }
}

/** The message without values a driver put in. */
function safeMessage(error: Error): string {
  const message = String(error.message);
  if (isFailedQuery(error)) return bounded(`Failed query: ${error.query}`);
  if (isAboutFields(error)) return bounded(`refused for what is in: ${error.fields.map(firstStep).join(", ")}`);
  // Class 22, "data exception": the text quotes the value, as in `invalid input syntax for type uuid: "…"`. In other
  // classes quotes hold names of the schema, and the values are in `detail` and `where`, which are not taken.
  if (isPostgres(error) && error.code.startsWith("22")) return bounded(message.replaceAll(/".*"/gs, '"…"'));
  return bounded(message);
}

function fieldsOf(error: unknown, depth: number): ErrorFields {
  if (!(error instanceof Error))
    return { type: typeof error, message: bounded(typeof error === "string" ? error : "[not an Error]") };
  const { code } = error as { code?: unknown };
  const stack = framesOf(error);
  const deeper = depth < maxCauses;
  return {
    type: typeof error.name === "string" && error.name !== "Error" ? error.name : error.constructor.name,
    message: safeMessage(error),
    ...(typeof code === "string" || typeof code === "number" ? { code } : {}),
    ...(isPostgres(error) ? schemaNames(error) : {}),
    ...(stack === "" ? {} : { stack }),
    ...(error.cause !== undefined && deeper ? { cause: errorFields(error.cause, depth + 1) } : {}),
    ...(error instanceof AggregateError && deeper
      ? // An aggregate within others tells its first only: five in five in five would fill the log.
        { errors: error.errors.slice(0, depth === 0 ? maxCauses : 1).map((each) => errorFields(each, depth + 1)) }
      : {}),
  };
}

/** DrizzleQueryError, by shape: telemetry does not depend on the store's driver. Its query has placeholders only. */
function isFailedQuery(error: Error): error is Error & { query: string; params: unknown } {
  return "query" in error && typeof error.query === "string" && "params" in error;
}

/** A refusal of a request, by shape: it is in words for who wrote that, which name keys and what rules say of values. */
function isAboutFields(error: Error): error is Error & { fields: readonly unknown[] } {
  return "reason" in error && "fields" in error && Array.isArray(error.fields) && error.fields.length > 0;
}

/** Of a path: what is behind the first step may be the caller's. */
function firstStep(fault: unknown): string {
  const { field } = fault as { field?: unknown };
  return /^[a-z_]{1,64}(?![\w-])/.exec(String(field))?.[0] ?? "the request";
}

/** PostgresError of postgres.js, by shape. */
function isPostgres(error: Error): error is Error & { code: string; severity: unknown } {
  return "severity" in error && "code" in error && typeof error.code === "string";
}

function schemaNames(error: object): Pick<ErrorFields, "table" | "column" | "constraint"> {
  const name = (key: string, from: string) => {
    const value: unknown = Reflect.get(error, from);
    return typeof value === "string" && value !== "" ? { [key]: value } : {};
  };
  return { ...name("table", "table_name"), ...name("column", "column_name"), ...name("constraint", "constraint_name") };
}

function framesOf(error: Error): string {
  return typeof error.stack === "string" ? framesIn(error.stack) : "";
}

/** The lines of a stack that say where. */
export function framesIn(stack: string): string {
  return stack
    .split("\n")
    .filter((line) => /^\s+at .*(:\d+:\d+\)?|\(<anonymous>\)|native\)?)$/.test(line))
    .slice(0, 20)
    .map((line) => line.trim().slice(0, 300))
    .join("\n");
}

function bounded(text: string): string {
  return text.length > maxMessage ? `${text.slice(0, maxMessage).toWellFormed()}…` : text;
}
