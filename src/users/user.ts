import { create, type JsonObject, toBinary } from "@bufbuild/protobuf";
import { timestampFromDate } from "@bufbuild/protobuf/wkt";
import { type User, UserSchema } from "#gen/posthorn/v1/user_service_pb.ts";
import { type FieldFault, invalidRequest } from "#src/errors.ts";
import { jsonFault, textFaults } from "#src/store/storable.ts";
import { isTimeZone } from "./time-zone.ts";

/** What the tenant says about a user. */
export type Profile = {
  id: string;
  displayName: string;
  email: string;
  phone: string;
  locale: string;
  timeZone: string;
  roles: string[];
  attributes: JsonObject | null;
};

/** A profile with what the server adds. */
export type StoredUser = Profile & { createdAt: Date; updatedAt: Date };

const MAX_ATTRIBUTES_BYTES = 8 * 1024;

export function profileOf(user: User): Profile {
  const { id, displayName, email, phone, locale, timeZone, roles, attributes } = user;
  return { id, displayName, email, phone, locale, timeZone, roles, attributes: attributes ?? null };
}

export function toUser(stored: StoredUser): User {
  const { createdAt, updatedAt, attributes, ...same } = stored;
  return create(UserSchema, {
    ...same,
    ...(attributes === null ? {} : { attributes }),
    createTime: timestampFromDate(createdAt),
    updateTime: timestampFromDate(updatedAt),
  });
}

/** The user with the masked fields (names of the contract) of another; the same when none of them is the tenant's. */
export function withFields(stored: StoredUser, changed: Profile, paths: readonly string[]): StoredUser {
  const fields = paths.flatMap((path) => (Object.hasOwn(FIELDS, path) ? [FIELDS[path as keyof typeof FIELDS]] : []));
  if (fields.length === 0) return stored;
  return { ...stored, ...Object.fromEntries(fields.map((field) => [field, changed[field]])) };
}

/** `id` names the user and the times are the server's: masked or not, they stay. */
const FIELDS = {
  display_name: "displayName",
  email: "email",
  phone: "phone",
  locale: "locale",
  time_zone: "timeZone",
  roles: "roles",
  attributes: "attributes",
} as const satisfies Record<string, keyof Profile>;

/** The rules that the contract's validation cannot express, with paths relative to the user. */
export function profileFaults(profile: Profile): FieldFault[] {
  const faults = textFaults({ display_name: profile.displayName, email: profile.email });
  if (profile.timeZone !== "" && !isTimeZone(profile.timeZone)) {
    faults.push({ field: "time_zone", description: 'must be an IANA time zone, such as "Europe/Lisbon"' });
  }
  if (profile.locale !== "" && !isLocale(profile.locale)) {
    faults.push({ field: "locale", description: 'must be a BCP 47 language tag, such as "pt-BR"' });
  }
  const attributes = attributesFault(profile.attributes);
  if (attributes !== undefined) faults.push(attributes);
  return faults;
}

/** INVALID_REQUEST when a profile breaks those rules; `parent` is the path of the user in the request. */
export function checkProfile(parent: string, profile: Profile): void {
  const fields = profileFaults(profile).map(({ field, description }) => ({ field: `${parent}.${field}`, description }));
  if (fields.length === 0) return;
  throw invalidRequest(fields);
}

function attributesFault(attributes: JsonObject | null): FieldFault | undefined {
  if (attributes === null) return undefined;
  const unstorable = jsonFault("attributes", attributes);
  if (unstorable !== undefined) return unstorable;
  // The caller's own size of the Struct, give or take the tag and length of the field.
  const bytes = toBinary(UserSchema, create(UserSchema, { attributes })).length;
  if (bytes <= MAX_ATTRIBUTES_BYTES + 4) return undefined;
  return { field: "attributes", description: `must be at most 8 KiB encoded; it is ${bytes} bytes` };
}

function isLocale(tag: string): boolean {
  try {
    return Intl.getCanonicalLocales(tag).length === 1;
  } catch {
    return false;
  }
}
