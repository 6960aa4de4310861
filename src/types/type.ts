import { create, type DescMessage, fromBinary, toBinary } from "@bufbuild/protobuf";
import { type Duration, durationFromMs, durationMs, timestampFromDate } from "@bufbuild/protobuf/wkt";
import { Channel, EscalationSchema, Priority } from "#gen/posthorn/v1/notification_pb.ts";
import {
  BatchRule_Mode,
  BatchRuleSchema,
  type BatchWording,
  BatchWordingSchema,
  DeliveryMode,
  DigestRule,
  type NotificationType,
  NotificationTypeSchema,
  PayloadWordingSchema,
  TypeDeprecationSchema,
} from "#gen/posthorn/v1/type_service_pb.ts";
import { offsetsOf, toOffsets } from "#src/deadlines/offsets.ts";
import { type FieldFault, invalidRequest } from "#src/errors.ts";
import { type EscalationPlan, toPlan } from "#src/escalation/plan.ts";
import type { types } from "#src/store/schema/users.ts";
import { textFaults } from "#src/store/storable.ts";
import { deprecationFaults, storedDeprecation } from "./deprecation.ts";
import { textsOf, wordingFaults } from "./payload/wording.ts";

/** A type as stored: what accepting and routing read. Channels and priority are the contract's numbers. */
export type NotificationTypeRow = typeof types.$inferSelect;

/** What the gates ask of a type. */
export type TypeRules = {
  /** Undefined: never batched. */
  readonly batching: TypeBatching | undefined;
  readonly digest: DigestRule;
  /** What it is worth to its recipient: value times urgency, 1 to 25. */
  readonly worth: number;
  /** What happens when nobody answers; undefined: nothing. */
  readonly escalation?: EscalationPlan | undefined;
  /** How long it may wait for a good hour of its recipient; undefined: not at all. */
  readonly maxWaitMs?: number | undefined;
  /** No outside channel is given it again that may have taken it. */
  readonly atMostOnce?: boolean;
};

export type TypeBatching = {
  /** 0: the user's. */
  readonly maxSize: number;
  /** Undefined: the user's. */
  readonly windowMs: number | undefined;
  readonly leading: boolean;
  readonly sliding: boolean;
  readonly maxWindowMs: number | undefined;
};

/** Of value and of urgency. */
const USUAL = 3;

/** Of what has no type of its own. */
export const USUAL_WORTH = USUAL * USUAL;

export function rulesOf(row: RuledRow): TypeRules {
  const { batching, digestRule, value, urgency, escalation, timingMaxWaitMs, deliveryMode } = row;
  const rule = batching === null ? undefined : fromBinary(BatchRuleSchema, batching);
  const ms = (duration: Duration | undefined) => duration && Math.floor(durationMs(duration));
  return {
    batching: rule?.batchable
      ? {
          maxSize: rule.maxSize,
          windowMs: ms(rule.window),
          leading: rule.mode === BatchRule_Mode.LEADING,
          sliding: rule.sliding,
          maxWindowMs: ms(rule.maxWindow),
        }
      : undefined,
    digest: digestRule as DigestRule,
    worth: value * urgency,
    escalation: escalation === null ? undefined : toPlan(fromBinary(EscalationSchema, escalation)),
    maxWaitMs: timingMaxWaitMs ?? undefined,
    atMostOnce: deliveryMode === DeliveryMode.AT_MOST_ONCE,
  };
}

/** What `rulesOf` reads of what decides. */
const RULED = [
  "batching",
  "digestRule",
  "value",
  "urgency",
  "escalation",
  "timingMaxWaitMs",
] as const satisfies (keyof NotificationTypeRow)[];
type RuledRow = Pick<NotificationTypeRow, (typeof RULED)[number] | "deliveryMode">;

/** What the tenant says about a type, with every default filled in. */
export type TypeDefinition = Omit<
  NotificationTypeRow,
  | ("tenantId" | "revision" | "createdAt" | "updatedAt")
  // Changed by PushPayload alone.
  | ("payloadId" | "payloadVersion" | "payloadMessage")
>;

/** Every tenant has this type; it is what Send takes when none is named, and it cannot be deleted. */
export const GENERAL = "general";

/** The type "general" as a new tenant gets it. */
export const GENERAL_DEFINITION: TypeDefinition = {
  key: GENERAL,
  displayName: "General",
  description: "Whatever is sent without naming a type.",
  category: GENERAL,
  defaultPriority: Priority.NORMAL,
  defaultChannels: [Channel.IN_APP],
  defaultTtlMs: null,
  optIn: false,
  reminderOffsetsMs: null,
  batching: null,
  batchWording: null,
  digestRule: DigestRule.UNSPECIFIED,
  value: USUAL,
  urgency: USUAL,
  group: false,
  escalation: null,
  timingMaxWaitMs: null,
  wording: null,
  deprecation: null,
  deliveryMode: DeliveryMode.AT_LEAST_ONCE,
};

export function definitionOf(type: NotificationType): TypeDefinition {
  return {
    key: type.key,
    displayName: type.displayName,
    description: type.description,
    category: type.category || GENERAL,
    defaultPriority: type.defaultPriority || Priority.NORMAL,
    defaultChannels: type.defaultChannels.length > 0 ? type.defaultChannels : [Channel.IN_APP],
    defaultTtlMs: type.defaultTtl === undefined ? null : Math.floor(durationMs(type.defaultTtl)),
    optIn: type.optIn,
    reminderOffsetsMs: type.reminderOffsets === undefined ? null : offsetsOf(type.reminderOffsets),
    batching: type.batching === undefined ? null : toBinary(BatchRuleSchema, type.batching),
    batchWording: type.batchWording === undefined ? null : toBinary(BatchWordingSchema, type.batchWording),
    digestRule: type.digest,
    value: type.value || USUAL,
    urgency: type.urgency || USUAL,
    group: type.group,
    escalation: type.escalation === undefined ? null : toBinary(EscalationSchema, type.escalation),
    timingMaxWaitMs: type.timing?.maxWait === undefined ? null : Math.floor(durationMs(type.timing.maxWait)),
    wording: type.wording === undefined ? null : toBinary(PayloadWordingSchema, type.wording),
    deprecation: type.deprecation === undefined ? null : storedDeprecation(type.deprecation),
    deliveryMode: type.deliveryMode || DeliveryMode.AT_LEAST_ONCE,
  };
}

export function toType(row: NotificationTypeRow): NotificationType {
  return create(NotificationTypeSchema, {
    key: row.key,
    displayName: row.displayName,
    description: row.description,
    category: row.category,
    defaultPriority: row.defaultPriority as Priority,
    defaultChannels: row.defaultChannels as Channel[],
    ...(row.defaultTtlMs === null ? {} : { defaultTtl: durationFromMs(row.defaultTtlMs) }),
    optIn: row.optIn,
    ...(row.reminderOffsetsMs === null ? {} : { reminderOffsets: toOffsets(row.reminderOffsetsMs) }),
    ...(row.batching === null ? {} : { batching: fromBinary(BatchRuleSchema, row.batching) }),
    ...(row.batchWording === null ? {} : { batchWording: fromBinary(BatchWordingSchema, row.batchWording) }),
    digest: row.digestRule as DigestRule,
    value: row.value,
    urgency: row.urgency,
    group: row.group,
    ...(row.escalation === null ? {} : { escalation: fromBinary(EscalationSchema, row.escalation) }),
    ...(row.timingMaxWaitMs === null ? {} : { timing: { maxWait: durationFromMs(row.timingMaxWaitMs) } }),
    ...(row.wording === null ? {} : { wording: fromBinary(PayloadWordingSchema, row.wording) }),
    ...(row.deprecation === null ? {} : { deprecation: fromBinary(TypeDeprecationSchema, row.deprecation) }),
    deliveryMode: row.deliveryMode as DeliveryMode,
    payloadMessage: row.payloadMessage ?? "",
    payloadVersion: row.payloadVersion ?? 0,
    revision: row.revision,
    createTime: timestampFromDate(row.createdAt),
    updateTime: timestampFromDate(row.updatedAt),
  });
}

const FIELDS = {
  display_name: "displayName",
  description: "description",
  category: "category",
  default_priority: "defaultPriority",
  default_channels: "defaultChannels",
  default_ttl: "defaultTtlMs",
  opt_in: "optIn",
  reminder_offsets: "reminderOffsetsMs",
  batching: "batching",
  batch_wording: "batchWording",
  digest: "digestRule",
  value: "value",
  urgency: "urgency",
  group: "group",
  escalation: "escalation",
  timing: "timingMaxWaitMs",
  wording: "wording",
  deprecation: "deprecation",
  delivery_mode: "deliveryMode",
} as const satisfies Record<string, keyof TypeDefinition>;

/** The masked fields (names of the contract) that differ from the row; `key` and the server's own fields never do. */
export function changesOf(
  row: NotificationTypeRow,
  wanted: TypeDefinition,
  paths: readonly string[],
): Partial<TypeDefinition> {
  const fields = paths.flatMap((path) => (Object.hasOwn(FIELDS, path) ? [FIELDS[path as keyof typeof FIELDS]] : []));
  const differs = (field: keyof TypeDefinition) => asText(row[field]) !== asText(wanted[field]);
  return Object.fromEntries(fields.filter(differs).map((field) => [field, wanted[field]]));
}

/** Fields by which it is decided what becomes of notifications that wait; the others count for what is accepted later. */
const RULES: readonly (keyof TypeDefinition)[] = ["optIn", ...RULED];

/** Whether changes of a type may concern what waits. Its wording does not: a batch is worded when it closes. */
export function changesRules(changes: Partial<TypeDefinition>): boolean {
  return RULES.some((field) => Object.hasOwn(changes, field));
}

function asText(value: TypeDefinition[keyof TypeDefinition]): string {
  return value instanceof Uint8Array ? Buffer.from(value).toString("hex") : JSON.stringify(value);
}

/** INVALID_REQUEST for what the contract's validation cannot refuse. */
export function checkDefinition(definition: TypeDefinition): void {
  const { displayName, description, batchWording, wording } = definition;
  const { title, body, more, translations } = fromBinary(BatchWordingSchema, batchWording ?? new Uint8Array());
  const wordings = Object.entries({ "type.batch_wording": { title, body, more }, ...translationsByPath(translations) });
  const fields = textFaults({
    "type.display_name": displayName,
    "type.description": description,
    ...Object.fromEntries(
      wordings.flatMap(([path, { title, body, more }]) => [
        [`${path}.title`, title],
        [`${path}.body`, body],
        [`${path}.more`, more],
      ]),
    ),
    ...Object.fromEntries(textsOf(wording).map(([path, text]) => [`type.${path}`, text])),
  });
  fields.push(...wordingFaults(wording, undefined).map(inType));
  if ((wording?.byteLength ?? 0) > MAX_WORDING_BYTES)
    fields.push({ field: "type.wording", description: `must have no more than ${MAX_WORDING_BYTES} bytes in all` });
  fields.push(...deprecationFaults(definition));
  if ((batchWording?.byteLength ?? 0) > MAX_WORDING_BYTES)
    fields.push({
      field: "type.batch_wording",
      description: `must have no more than ${MAX_WORDING_BYTES} bytes in all`,
    });
  if (fields.length > 0) throw invalidRequest(fields);
}

/** INVALID_REQUEST for a wording that payloads of a message cannot fill in. */
export function checkWording({ wording }: Pick<TypeDefinition, "wording">, desc: DescMessage): void {
  const fields = wordingFaults(wording, desc).map(inType);
  if (fields.length > 0) throw invalidRequest(fields);
}

function inType({ field, description }: FieldFault): FieldFault {
  return { field: `type.${field}`, description };
}

/** In all languages: types are read often, many at a time, and are kept in memory. */
const MAX_WORDING_BYTES = 32_768;

function translationsByPath(translations: BatchWording["translations"]): BatchWording["translations"] {
  return Object.fromEntries(
    Object.entries(translations).map(([tag, words]) => [`type.batch_wording.translations["${tag}"]`, words]),
  );
}
