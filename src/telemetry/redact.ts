/** What a log line may hold. A rule for names, not for call sites: passing content or a credential never prints it. */

import { errorFields } from "./error-fields.ts";

const redacted = "[redacted]";
const maxDepth = 6;
const maxItems = 50;
const maxText = 1_000;
/** Values in one line, all levels together: fifty on each of six would be billions. */
const maxValues = 200;

type Room = { left: number };

/** What people wrote or how they are reached. E-mail subjects too: a NATS subject is logged as `natsSubject`. */
const content = new Set(
  "content title body text html subject data payload variables attributes metadata actions params parameters args values email phone msisdn recipient contact headers rawheaders query".split(
    " ",
  ),
);

/** Ends of names that hold credentials, or keys chosen by a caller, which may say anything. */
const credential =
  /(token|tokens|secret|secrets|password|passwd|pass|key|keys|credential|credentials|cookie|cookies|authorization|signature|jwt|bearer)$/;

/** Whether the value under this name is never printed. `apiKey`, `api_key` and `x-api-key` are the same name. */
export function isForbidden(name: string): boolean {
  const plain = name.toLowerCase().replaceAll(/[^a-z0-9]/g, "");
  return content.has(plain) || credential.test(plain);
}

/**
 * A copy fit to be logged: bounded in depth, length and count, forbidden names redacted, errors reduced to facts.
 * Total: what throws when it is read becomes "[unreadable]".
 */
export function loggable(value: unknown, depth = 0, room: Room = { left: maxValues }): unknown {
  if (room.left-- <= 0) return "[too much]";
  switch (typeof value) {
    case "string":
      return shortened(value);
    case "bigint":
      return value.toString();
    case "function":
    case "symbol":
      return `[${typeof value}]`;
    case "object":
      try {
        return value === null ? null : loggableObject(value, depth, room);
      } catch {
        return "[unreadable]";
      }
    default:
      return value;
  }
}

/** The same for the fields of one log call. */
export function loggableFields(fields: object): Record<string, unknown> {
  const result: Record<string, unknown> = {};
  const room = { left: maxValues };
  for (const [name, value] of Object.entries(fields)) result[name] = loggableField(name, value, 0, room);
  return result;
}

function loggableField(name: string, value: unknown, depth: number, room: Room): unknown {
  const harmless = value === undefined || value === null || typeof value === "boolean";
  return !harmless && isForbidden(name) ? redacted : loggable(value, depth, room);
}

function loggableObject(value: object, depth: number, room: Room): unknown {
  if (value instanceof Error) return errorFields(value);
  if (value instanceof Date) return Number.isNaN(value.getTime()) ? "[invalid date]" : value.toISOString();
  if (ArrayBuffer.isView(value)) return `[${value.byteLength} bytes]`;
  // A protobuf message may carry content in any field.
  if ("$typeName" in value) return `[message ${String(value.$typeName)}]`;
  if (depth >= maxDepth) return "[too deep]";
  // Times, URLs, and the configuration, which knows what not to show.
  if ("toJSON" in value && typeof value.toJSON === "function") return loggable(value.toJSON(), depth + 1, room);
  if (Array.isArray(value) || value instanceof Set) return loggableList([...value], depth, room);
  const entries =
    value instanceof Map ? [...value].map(([key, item]) => [String(key), item] as const) : Object.entries(value);
  const kept = entries.slice(0, maxItems).map(([name, item]) => [name, loggableField(name, item, depth + 1, room)]);
  if (entries.length > maxItems) kept.push(["…", `${entries.length - maxItems} more`]);
  return Object.fromEntries(kept);
}

function loggableList(items: readonly unknown[], depth: number, room: Room): unknown[] {
  const kept = items.slice(0, maxItems).map((item) => loggable(item, depth + 1, room));
  return items.length > maxItems ? [...kept, `${items.length - maxItems} more`] : kept;
}

function shortened(text: string): string {
  return text.length > maxText ? `${text.slice(0, maxText).toWellFormed()}…` : text;
}

const jwt = /\beyJ[\w-]{5,}\.[\w-]+\.[\w-]*/g;
const bearer = /\b(bearer|basic)\s+[\w.~+/=-]{6,}/gi;
const credentialsInUrl = /(\b[a-z][a-z0-9+.-]*:\/\/)[^\s"'/?#]+@/gi;
const emailAddress = /[\w.+%-]{1,64}@(?:[a-z0-9-]{1,63}\.){1,8}[a-z]{2,24}\b/gi;

/** The last look at a finished line, for what slipped into free text: tokens, credentials in URLs, e-mail addresses. */
export function scrubbed(line: string): string {
  return line
    .replaceAll(jwt, redacted)
    .replaceAll(bearer, `$1 ${redacted}`)
    .replaceAll(credentialsInUrl, `$1${redacted}@`)
    .replaceAll(emailAddress, redacted);
}
