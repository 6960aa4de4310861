import {
  create,
  type DescEnum,
  type DescField,
  type DescMessage,
  type DescMethod,
  getOption,
  type Message,
  ScalarType,
} from "@bufbuild/protobuf";
import { type ReflectMessage, reflect } from "@bufbuild/protobuf/reflect";
import { DurationSchema, timestampFromDate } from "@bufbuild/protobuf/wkt";
import { field as fieldRules } from "#gen/buf/validate/validate_pb.ts";

/**
 * What requests are filled with, by the proto name of the field (or "Message.field", for that one only): ids that exist in
 * the victim's tenant, and otherwise what validation asks for. A string or list field that is not here fails the test: somebody has to say what an
 * attacker would put there.
 */
export type Fill = Readonly<Record<string, unknown>>;

/** For whatever a request names by a key that its caller chose: all of it is called "vault". */
export const NAMED_VAULT: Fill = {
  key: "vault",
  topic: "vault",
  topics: ["vault"],
  type: "vault",
  types: ["vault"],
  category: "vault",
  categories: ["vault"],
  role: "vault",
  roles: ["vault"],
  tag: "vault",
  tags: ["vault"],
};

/** Left empty: filters that would hide what they should find, and what the server fills itself. */
const SKIP = new Set([
  "update_mask",
  "statuses",
  "create_time",
  "update_time",
  "revision",
  "actions",
  "data",
  "attributes",
  "default_ttl",
  "default_channels",
  "default_priority",
  "minimum_priority",
  "everyone",
  "image_url",
  "icon",
  "url",
  "bypass_rate_limit",
  "dedup_window",
  "window",
  "wait_for_decision",
  "ttl",
  "member_count",
  "group",
  "public_key_pem",
  "jwks_url",
  "all_tenants",
  "fired_count",
  "missed_count",
  "next_occurrences",
  "reminders",
  "reminder_offsets",
  "window",
  "max_window",
  "payload",
  "typed",
  "payload_message",
  "payload_version",
  "deprecation",
]);

/** A schedule's request may not set these. */
const NOT_SCHEDULED = new Set(["schedule_time", "local_schedule_time", "expire_time", "idempotency_key"]);

const HOUR = 3_600_000;

/** Every request to try on a method: all fields filled, each optional part left out in turn, each choice of a oneof. */
export function requestsOf(method: DescMethod, fill: Fill): Message[] {
  const whole = build(method.input, fill, 0);
  const requests = [whole];
  for (const field of method.input.fields) {
    const without = build(method.input, fill, 0);
    if (!without.isSet(field)) continue;
    without.clear(field);
    requests.push(without);
  }
  for (const oneof of method.input.oneofs) {
    for (const field of oneof.fields) {
      if (SKIP.has(field.name)) continue;
      const other = build(method.input, fill, 0);
      set(other, field, fill, 0);
      requests.push(other);
    }
  }
  return requests.map(({ message }) => message);
}

function build(desc: DescMessage, fill: Fill, depth: number): ReflectMessage {
  const message = reflect(desc, create(desc));
  for (const field of desc.fields) {
    if (SKIP.has(field.name)) continue;
    if (field.oneof !== undefined && message.oneofCase(field.oneof) !== undefined) continue;
    set(message, field, fill, depth);
  }
  return message;
}

function set(message: ReflectMessage, field: DescField, fill: Fill, depth: number): void {
  if (depth > 4) return;
  switch (field.fieldKind) {
    case "message":
      message.set(field, ofMessage(field.message, field.name, fill, depth));
      return;
    case "enum":
      message.set(field, anyOf(field.enum, field));
      return;
    case "scalar":
      message.set(field, ofScalar(field.scalar, field, fill));
      return;
    case "list": {
      if (field.listKind === "message") message.get(field).add(ofMessage(field.message, field.name, fill, depth));
      else if (field.listKind === "enum") message.get(field).add(anyOf(field.enum, field));
      else for (const item of (fill[field.name] as string[]) ?? missing(field)) message.get(field).add(item);
      return;
    }
    case "map":
      return; // Preferences' scopes and a wording's languages: what they name need not exist.
  }
}

function ofMessage(desc: DescMessage, name: string, fill: Fill, depth: number): ReflectMessage {
  if (name === "after" || name === "max_wait") return reflect(desc, create(DurationSchema, { seconds: 86_400n }));
  if (desc.typeName !== "google.protobuf.Timestamp") {
    if (desc.typeName.startsWith("google.protobuf.")) return reflect(desc, create(desc));
    const whole = build(desc, fill, depth + 1);
    if (name === "request") for (const field of desc.fields) if (NOT_SCHEDULED.has(field.name)) whole.clear(field);
    return whole;
  }
  const hours = name === "start_time" ? -24 : name === "expire_time" ? 3 : 1;
  const at = new Date(Date.now() + hours * HOUR);
  return reflect(desc, timestampFromDate(at) as Message);
}

/** The first value that is one and that the field may have. */
function anyOf(desc: DescEnum, field: DescField): number {
  const { type } = getOption(field, fieldRules);
  const rules = type.case === "repeated" ? type.value.items?.type : type;
  const not = rules?.case === "enum" ? rules.value.notIn : [];
  const allowed = desc.values.filter(({ number }) => !not.includes(number));
  return (allowed.find(({ number }) => number !== 0) ?? allowed[0])?.number ?? 0;
}

function ofScalar(type: ScalarType, field: DescField, fill: Fill): unknown {
  const full = `${field.parent.name}.${field.name}`;
  if (full in fill) return fill[full];
  if (type === ScalarType.BOOL) return field.oneof !== undefined;
  if (field.name in fill) return fill[field.name];
  return missing(field);
}

function missing(field: DescField): never {
  throw new Error(`say what ${field.parent.typeName}.${field.name} is filled with`);
}
