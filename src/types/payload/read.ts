import {
  fromBinary,
  fromJson,
  type JsonObject,
  type JsonValue,
  type Message,
  toBinary,
  toJson,
} from "@bufbuild/protobuf";
import { type Path, pathToString } from "@bufbuild/protobuf/reflect";
import type { Any } from "@bufbuild/protobuf/wkt";
import type { FieldFault } from "#src/errors.ts";
import { unreadableField } from "#src/rpc/unreadable-field.ts";
import type { Contract } from "./contract.ts";
import { BYTES_PER_UNIT } from "./pricing.ts";

/** A payload that its contract lets through: the bytes that are kept, and the same as JSON. */
export type Payload = { readonly value: Uint8Array; readonly json: JsonObject; readonly message: Message };

/** What is wrong with a payload: fields by their paths in it, "" for the whole. */
export type Refused = {
  readonly faults: readonly FieldFault[];
  /** The first, for who may not read the payload: without keys of maps, and words that rules make of what it holds. */
  readonly toOthers: string;
};

export const MAX_PAYLOAD_BYTES = 16 * 1024;
/** Nodes of expressions that the rules of one payload may take: some tens of milliseconds at the very worst. */
const MAX_PRICE = 100_000;

/** What a generated class has packed. */
export function readAny(contract: Contract, { typeUrl, value }: Any): Payload | Refused {
  const name = typeUrl.slice(typeUrl.lastIndexOf("/") + 1);
  if (name !== contract.desc.typeName) {
    const { typeName } = contract.desc;
    return refused("", `must be a ${typeName}, not ${shown(name)}`, `must be a ${typeName}`);
  }
  return readBytes(contract, value);
}

export function readBytes(contract: Contract, value: Uint8Array): Payload | Refused {
  const { desc } = contract;
  if (value.byteLength > MAX_PAYLOAD_BYTES) return refused("", "must be at most 16 KiB");
  let message: Message;
  try {
    message = fromBinary(desc, value);
  } catch {
    return unread(contract, unreadableField(desc, value, "binary"));
  }
  return judged(contract, message, value);
}

/** The message in protobuf's JSON. */
export function readJson(contract: Contract, json: JsonObject): Payload | Refused {
  const { desc, registry } = contract;
  let message: Message;
  try {
    message = fromJson(desc, json, { registry });
  } catch (error) {
    const at = unreadableField(desc, Buffer.from(JSON.stringify(json)), "json");
    return unread(contract, at, error);
  }
  let value: Uint8Array;
  try {
    value = toBinary(desc, message);
  } catch {
    return refused("", `lacks a required field of ${nameOf(contract)}`);
  }
  if (value.byteLength > MAX_PAYLOAD_BYTES) return refused("", "must be at most 16 KiB");
  return judged(contract, message, value);
}

function judged(contract: Contract, message: Message, value: Uint8Array): Payload | Refused {
  const { desc, registry, priceOf, judge } = contract;
  const json = asJson(() => toJson(desc, message, { registry }));
  if (json === undefined) return refused("", `cannot be told in JSON by the descriptors of ${nameOf(contract)}`);
  const units = countValues(json) + value.byteLength / BYTES_PER_UNIT;
  if (priceOf(message, units) > MAX_PRICE)
    return refused("", "is too much for the rules of its message: send less in it");
  const result = judge(desc, message);
  if (result.kind === "valid") return { value, json, message };
  // The text of the failure is not told: what was sent stands in it.
  if (result.kind === "error")
    return refused("", "is nothing that a rule of its message can be asked about: its expression fails");
  const { violations } = result;
  const faults = violations.map(({ field, message: text, ruleId }) => ({
    field: pathToString(field),
    description: `${text || "breaks a rule"} (${ruleId})`,
  }));
  const [first] = violations;
  if (first === undefined) return { faults, toOthers: "breaks a rule" };
  const { field, message: text, rule, ruleId } = first;
  const words = text === "" || hasOwnWords(rule) ? "breaks a rule" : text;
  return { faults, toOthers: lineOf(pathToString(field.map(withoutKey)), `${words} (${ruleId})`) };
}

/**
 * Whether the contract's author says how the rule puts it: any expression may answer with what it has looked at. Rules of
 * messages have no path.
 */
function hasOwnWords(rule: Path): boolean {
  return (
    rule.length === 0 ||
    rule.some((step) => step.kind === "extension" || (step.kind === "field" && /^cel(_|$)/.test(step.name)))
  );
}

function withoutKey(step: Path[number]): Path[number] {
  return step.kind === "map_sub" ? { ...step, key: "…" } : step;
}

function asJson(work: () => JsonValue): JsonObject | undefined {
  try {
    const json = work();
    return typeof json === "object" && json !== null && !Array.isArray(json) ? json : undefined;
  } catch {
    return undefined;
  }
}

/** What is sent is not in what is said about it. */
function unreadable(contract: Contract, error: unknown): string {
  const text = error instanceof Error ? error.message : "";
  if (/ is unknown$/.test(text)) return `is unknown to ${nameOf(contract)}`;
  const [, why] = /from JSON: (expected [\w ()]+)/.exec(text) ?? [];
  return `cannot be read as ${nameOf(contract)}${why === undefined ? "" : `: ${shown(why)}`}`;
}

/** With all that is nested in it. */
function countValues(root: JsonValue): number {
  const waiting: JsonValue[] = [root];
  let count = 0;
  for (let value = waiting.pop(); value !== undefined; value = waiting.pop()) {
    count++;
    if (typeof value === "object" && value !== null) for (const item of Object.values(value)) waiting.push(item);
  }
  return count;
}

function nameOf({ desc, version }: Contract): string {
  return `${desc.typeName} (version ${version})`;
}

function unread(contract: Contract, field: string, error?: unknown): Refused {
  return refused(field, unreadable(contract, error), `cannot be read as ${nameOf(contract)}`);
}

function refused(field: string, description: string, toOthers = lineOf(field, description)): Refused {
  return { faults: [{ field, description }], toOthers };
}

function lineOf(field: string, description: string): string {
  return field === "" ? description : `${field}: ${description}`;
}

function shown(text: string): string {
  return (text.length > 150 ? `${text.slice(0, 150)}…` : text).toWellFormed();
}
