import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import { timestampDate, timestampFromDate } from "@bufbuild/protobuf/wkt";
import { ErrorReason } from "#gen/posthorn/v1/error_pb.ts";
import { type TypeDeprecation, TypeDeprecationSchema } from "#gen/posthorn/v1/type_service_pb.ts";
import { type Warning, Warning_Code, WarningSchema } from "#gen/posthorn/v1/warning_pb.ts";
import { Fault, type FieldFault } from "#src/errors.ts";
import { textFaults } from "#src/store/storable.ts";

/** A type, and that it is deprecated: encoded posthorn.v1.TypeDeprecation; null: it is not. */
export type Deprecated = { readonly key: string; readonly deprecation: Uint8Array | null };

/** What RFC 3339, and so protobuf's JSON, can say. */
const YEARS = { first: 1, last: 9999 };

/** As it is kept: to the millisecond, so that what is compared is what is shown. */
export function storedDeprecation({ sunsetTime, ...rest }: TypeDeprecation): Uint8Array {
  const sunset = sunsetTime && timestampDate(sunsetTime);
  const isKept = sunset === undefined || !isTime(sunset);
  return toBinary(
    TypeDeprecationSchema,
    create(TypeDeprecationSchema, {
      note: rest.note,
      replacement: rest.replacement,
      ...(sunsetTime && { sunsetTime: isKept ? sunsetTime : timestampFromDate(sunset) }),
    }),
  );
}

/** The same with since when, which is `now` unless the type is deprecated already: then it is what is stored. */
export function deprecatedSince(wanted: Uint8Array | null, before: Uint8Array | null, now: Date): Uint8Array | null {
  if (wanted === null) return null;
  const since = before === null ? timestampFromDate(now) : fromBinary(TypeDeprecationSchema, before).deprecateTime;
  const deprecation = fromBinary(TypeDeprecationSchema, wanted);
  if (since !== undefined) deprecation.deprecateTime = since;
  return toBinary(TypeDeprecationSchema, deprecation);
}

/** What the contract's validation cannot refuse. */
export function deprecationFaults({ key, deprecation }: Deprecated): FieldFault[] {
  if (deprecation === null) return [];
  const { note, replacement, sunsetTime } = fromBinary(TypeDeprecationSchema, deprecation);
  const fields = textFaults({ "type.deprecation.note": note });
  if (replacement === key)
    fields.push({ field: "type.deprecation.replacement", description: "must be another type than itself" });
  if (sunsetTime !== undefined && !isTime(timestampDate(sunsetTime)))
    fields.push({ field: "type.deprecation.sunset_time", description: "is not a time" });
  return fields;
}

/** From when on a type is refused; undefined: it is not. */
export function sunsetOf({ deprecation }: Deprecated): Date | undefined {
  if (deprecation === null) return undefined;
  const { sunsetTime } = fromBinary(TypeDeprecationSchema, deprecation);
  return sunsetTime && timestampDate(sunsetTime);
}

export function hasSunset(type: Deprecated, now: Date): boolean {
  const sunset = sunsetOf(type);
  return sunset !== undefined && sunset <= now;
}

/** Throws TYPE_SUNSET when nothing of the type can be sent at that instant any more. */
export function checkSunset(type: Deprecated, at: Date): void {
  if (hasSunset(type, at)) throw typeSunset(type);
}

/** What whoever sends the type is told. */
export function warningsOf({ key, deprecation }: Deprecated): Warning[] {
  if (deprecation === null) return [];
  const { replacement, sunsetTime, deprecateTime } = fromBinary(TypeDeprecationSchema, deprecation);
  const times = { ...(sunsetTime && { sunsetTime }), ...(deprecateTime && { deprecateTime }) };
  return [create(WarningSchema, { code: Warning_Code.TYPE_DEPRECATED, type: key, replacement, ...times })];
}

export function typeSunset({ key, deprecation }: Deprecated): Fault {
  const { replacement, sunsetTime } = fromBinary(TypeDeprecationSchema, deprecation ?? new Uint8Array());
  const sunset = sunsetTime === undefined ? "" : timestampDate(sunsetTime).toISOString();
  const instead = replacement === "" ? "It names no other to send in its place." : `Send "${replacement}" instead.`;
  return new Fault(ErrorReason.TYPE_SUNSET, {
    message: `The type "${key}" is refused from ${sunset} on. ${instead}`,
    metadata: { type: key, sunset_time: sunset, ...(replacement === "" ? {} : { replacement }) },
  });
}

function isTime(date: Date): boolean {
  const year = date.getUTCFullYear();
  return year >= YEARS.first && year <= YEARS.last;
}
