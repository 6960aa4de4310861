// How words of the command line become values. Every function throws commander's InvalidArgumentError, which names the
// option and ends with exit code 2.
import type { DescEnum, JsonObject } from "@bufbuild/protobuf";
import { create } from "@bufbuild/protobuf";
import {
  type Duration,
  DurationSchema,
  type Timestamp,
  timestampFromDate,
  timestampFromMs,
} from "@bufbuild/protobuf/wkt";
import { InvalidArgumentError } from "commander";
import { type Channel, ChannelSchema } from "#gen/posthorn/v1/notification_pb.ts";

const UNITS: Readonly<Record<string, number>> = { ms: 1, s: 1_000, m: 60_000, h: 3_600_000, d: 86_400_000 };

/** "90s", "1.5h", "7d" in milliseconds. */
export function durationMs(text: string): number {
  const [, amount, unit = ""] = /^(\d+(?:\.\d+)?)(ms|s|m|h|d)$/.exec(text) ?? [];
  const size = UNITS[unit];
  if (amount === undefined || size === undefined)
    throw new InvalidArgumentError("Write a number and a unit, like 500ms, 30s, 10m, 2h or 7d.");
  return Math.round(Number(amount) * size);
}

/** The same as a message. */
export function duration(text: string): Duration {
  const ms = durationMs(text);
  return create(DurationSchema, { seconds: BigInt(Math.floor(ms / 1000)), nanos: (ms % 1000) * 1_000_000 });
}

/** An instant: "+10m" from now, or ISO 8601 with its zone. */
export function instant(now: () => Date): (text: string) => Timestamp {
  return (text) => {
    if (text.startsWith("+")) return timestampFromMs(now().getTime() + durationMs(text.slice(1)));
    // Without a zone it would mean something else on every machine.
    const at = /(Z|[+-]\d{2}:?\d{2})$/i.test(text) ? new Date(text) : new Date(Number.NaN);
    if (Number.isNaN(at.getTime()))
      throw new InvalidArgumentError('Write "+10m", or a time with its zone like 2026-03-29T09:00:00Z.');
    return timestampFromDate(at);
  };
}

export function wholeNumber(least: number, most: number): (text: string) => number {
  return (text) => {
    const value = Number(text);
    if (!/^\d+$/.test(text) || value < least || value > most)
      throw new InvalidArgumentError(`Write a whole number from ${least} to ${most}.`);
    return value;
  };
}

export function jsonObject(text: string): JsonObject {
  try {
    const value: unknown = JSON.parse(text);
    if (typeof value === "object" && value !== null && !Array.isArray(value)) return value as JsonObject;
  } catch {
    // Told below.
  }
  throw new InvalidArgumentError(`Write a JSON object, like '{"order": 42}'.`);
}

/** Collects an option that may be given more than once, or with commas. */
export function several<T>(one: (text: string) => T): (text: string, previous: T[] | undefined) => T[] {
  return (text, previous = []) => [...previous, ...text.split(",").map((word) => one(word.trim()))];
}

export const word = (text: string): string => {
  if (text === "") throw new InvalidArgumentError("It must not be empty.");
  return text;
};

/** The values of an enum as words: PRIORITY_CRITICAL is "critical". Zero is left out: it means "not said". */
export function enumWords(schema: DescEnum): string[] {
  return schema.values.filter((value) => value.number !== 0).map((value) => asWord(value.localName));
}

/** Parses such a word; the contract's own name is understood as well. */
export function enumValue<T extends number>(schema: DescEnum): (text: string) => T {
  return (text) => {
    const found = schema.values.find(
      (value) => value.number !== 0 && (asWord(value.localName) === asWord(text) || value.name === text),
    );
    if (!found) throw new InvalidArgumentError(`Choose from ${enumWords(schema).join(", ")}.`);
    return found.number as T;
  };
}

/** The word of an enum value; an unknown one by its number, as a newer server may send. */
export function enumWord(schema: DescEnum, value: number): string {
  const found = schema.value[value];
  return found ? asWord(found.localName) : String(value);
}

function asWord(name: string): string {
  return name.toLowerCase().replaceAll("_", "-");
}

export type EscalationStep = { channel: Channel; after: Duration };

/** "email:5m" */
export function escalationStep(text: string): EscalationStep {
  const [channel = "", after = ""] = text.split(":");
  return { channel: enumValue<Channel>(ChannelSchema)(channel), after: duration(after) };
}
