import type { DescEnum, DescField, DescMessage } from "@bufbuild/protobuf";
import {
  type DescriptorProto_ReservedRange,
  type EnumDescriptorProto_EnumReservedRange,
  FeatureSet_FieldPresence as Presence,
  FieldDescriptorProto_Type as Type,
} from "@bufbuild/protobuf/wkt";
import { isOwn } from "./own-files.ts";

/** Something that a new version of a contract would break. `rule` is what `buf breaking` calls it where it knows it. */
export type Break = {
  readonly rule: string;
  readonly path: string;
  readonly description: string;
  readonly file: string;
};

/** More are of no use to anybody. */
export const MAX_BREAKS = 200;

/**
 * What cannot be read any more, in binary or JSON, by who has the other of two versions: the category WIRE_JSON of
 * `buf breaking`, over what a message reaches. Pure.
 */
export function breaksBetween(before: DescMessage, after: DescMessage): Break[] {
  if (before.typeName !== after.typeName) {
    return [
      broken("MESSAGE_SAME_NAME", before, `the message is ${after.typeName}; a contract keeps the name of its message`),
    ];
  }
  const breaks: Break[] = [];
  const seen = new Set<string>();
  const messages: [DescMessage, DescMessage][] = [[before, after]];
  for (let pair = messages.pop(); pair !== undefined && breaks.length < MAX_BREAKS; pair = messages.pop()) {
    const [old, now] = pair;
    if (seen.has(old.typeName) || isOwn(old)) continue;
    seen.add(old.typeName);
    breaks.push(...messageBreaks(old, now));
    for (const field of old.fields) {
      const same = now.fields.find(({ number }) => number === field.number);
      if (same === undefined) continue;
      if (field.message !== undefined && field.message.typeName === same.message?.typeName) {
        messages.push([field.message, same.message]);
      }
      const { enum: was } = field;
      if (was !== undefined && was.typeName === same.enum?.typeName && !seen.has(was.typeName) && !isOwn(was)) {
        seen.add(was.typeName);
        breaks.push(...enumBreaks(was, same.enum));
      }
    }
  }
  return breaks.slice(0, MAX_BREAKS);
}

function messageBreaks(old: DescMessage, now: DescMessage): Break[] {
  const breaks = old.fields.flatMap((field) => {
    const same = now.fields.find(({ number }) => number === field.number);
    return same === undefined ? deletedBreaks(field, now) : fieldBreaks(field, same);
  });
  for (const field of now.fields) {
    if (isRequired(field) && !old.fields.some(({ number }) => number === field.number)) {
      breaks.push(broken("MESSAGE_SAME_REQUIRED_FIELDS", old, `the field "${field.name}" is required now`));
    }
  }
  breaks.push(...reservationBreaks("RESERVED_MESSAGE_NO_DELETE", old, now, (range) => range.end - 1));
  return breaks;
}

function deletedBreaks(field: DescField, now: DescMessage): Break[] {
  const { reservedRange, reservedName } = now.proto;
  const breaks: Break[] = [];
  if (!reservedRange.some(({ start, end }) => start <= field.number && field.number < end)) {
    const what = `was deleted without reserving its number ${field.number}`;
    breaks.push(broken("FIELD_NO_DELETE_UNLESS_NUMBER_RESERVED", field, what));
  }
  if (!reservedName.includes(field.name)) {
    breaks.push(broken("FIELD_NO_DELETE_UNLESS_NAME_RESERVED", field, "was deleted without reserving its name"));
  }
  if (isRequired(field)) breaks.push(broken("MESSAGE_SAME_REQUIRED_FIELDS", field, "was required, and is gone"));
  return breaks;
}

function fieldBreaks(old: DescField, now: DescField): Break[] {
  const breaks: Break[] = [];
  const say = (rule: string, description: string) => breaks.push(broken(rule, old, description));
  if (old.name !== now.name) say("FIELD_SAME_NAME", `is named "${now.name}" now`);
  if (old.jsonName !== now.jsonName)
    say("FIELD_SAME_JSON_NAME", `is "${now.jsonName}" in JSON now, not "${old.jsonName}"`);
  if (cardinality(old) !== cardinality(now)) {
    say("FIELD_WIRE_JSON_COMPATIBLE_CARDINALITY", `was ${cardinality(old)}, is ${cardinality(now)} now`);
  } else if (!isSameType(old, now)) {
    say("FIELD_WIRE_JSON_COMPATIBLE_TYPE", `was of type ${typeOf(old)}, is ${typeOf(now)} now`);
  }
  if (isRequired(old) !== isRequired(now)) {
    say("MESSAGE_SAME_REQUIRED_FIELDS", isRequired(now) ? "is required now" : "is not required any more");
  }
  const oneof = ({ oneof: of }: DescField) => of?.name ?? "";
  if (oneof(old) !== oneof(now)) {
    say("FIELD_SAME_ONEOF", oneof(now) === "" ? "is in no oneof now" : `is in the oneof "${oneof(now)}" now`);
  }
  if (old.proto.defaultValue !== now.proto.defaultValue) say("FIELD_SAME_DEFAULT", "has another default now");
  return breaks;
}

function enumBreaks(old: DescEnum, now: DescEnum): Break[] {
  const breaks: Break[] = [];
  for (const [number, values] of Map.groupBy(old.values, (value) => value.number)) {
    const names = now.values.filter((value) => value.number === number).map(({ name }) => name);
    for (const value of values) {
      const at = { typeName: `${old.typeName}.${value.name}`, file: old.file };
      if (names.length > 0) {
        if (!names.includes(value.name)) {
          breaks.push(broken("ENUM_VALUE_SAME_NAME", at, `${number} is "${names[0]}" now, not "${value.name}"`));
        }
        continue;
      }
      if (!now.proto.reservedRange.some(({ start, end }) => start <= number && number <= end)) {
        const what = `was deleted without reserving its number ${number}`;
        breaks.push(broken("ENUM_VALUE_NO_DELETE_UNLESS_NUMBER_RESERVED", at, what));
      }
      if (!now.proto.reservedName.includes(value.name)) {
        const what = "was deleted without reserving its name";
        breaks.push(broken("ENUM_VALUE_NO_DELETE_UNLESS_NAME_RESERVED", at, what));
      }
    }
  }
  breaks.push(...reservationBreaks("RESERVED_ENUM_NO_DELETE", old, now, (range) => range.end));
  return breaks;
}

type Range = DescriptorProto_ReservedRange | EnumDescriptorProto_EnumReservedRange;

/** `lastOf`: the last number of a range; of messages its end is the first beyond. */
function reservationBreaks<D extends DescMessage | DescEnum>(
  rule: string,
  old: D,
  now: D,
  lastOf: (range: Range) => number,
): Break[] {
  const kept: readonly Range[] = now.proto.reservedRange;
  const breaks: Break[] = [];
  for (const range of old.proto.reservedRange as readonly Range[]) {
    if (!kept.some((each) => each.start <= range.start && lastOf(each) >= lastOf(range))) {
      breaks.push(broken(rule, old, `does not reserve ${range.start} to ${lastOf(range)} any more`));
    }
  }
  for (const name of old.proto.reservedName) {
    if (!now.proto.reservedName.includes(name)) breaks.push(broken(rule, old, `does not reserve "${name}" any more`));
  }
  return breaks;
}

/** Fields of the same group are read as each other, in binary and JSON. */
const GROUPS: readonly (readonly number[])[] = [
  [Type.INT32, Type.UINT32],
  [Type.INT64, Type.UINT64],
  [Type.FIXED32, Type.SFIXED32],
  [Type.FIXED64, Type.SFIXED64],
];

function isSameType(old: DescField, now: DescField): boolean {
  if (keyOf(old) !== keyOf(now) || isDelimited(old) !== isDelimited(now)) return false;
  if (typeOf(old) === typeOf(now)) return true;
  const group = GROUPS.find((types) => types.includes(old.scalar ?? 0));
  return group?.includes(now.scalar ?? 0) ?? false;
}

function keyOf(field: DescField): number | undefined {
  return field.fieldKind === "map" ? field.mapKey : undefined;
}

/** A group, as it was called once. */
function isDelimited(field: DescField): boolean {
  return "delimitedEncoding" in field && field.delimitedEncoding === true;
}

function typeOf(field: DescField): string {
  return field.message?.typeName ?? field.enum?.typeName ?? (Type[field.scalar ?? 0] ?? "").toLowerCase();
}

function cardinality(field: DescField): string {
  return field.fieldKind === "list" ? "a list" : field.fieldKind === "map" ? "a map" : "a single value";
}

function isRequired({ presence }: DescField): boolean {
  return presence === Presence.LEGACY_REQUIRED;
}

function broken(
  rule: string,
  at: DescField | Pick<DescMessage | DescEnum, "typeName" | "file">,
  description: string,
): Break {
  const isField = "parent" in at && "number" in at;
  return {
    rule,
    path: isField ? `${at.parent.typeName}.${at.name}` : (at as DescMessage).typeName,
    description,
    file: (isField ? at.parent.file : (at as DescMessage).file).proto.name,
  };
}
