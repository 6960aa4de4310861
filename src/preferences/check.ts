import type { Preferences } from "#gen/posthorn/v1/preferences_service_pb.ts";
import { invalidField } from "#src/errors.ts";
import { isTimeZone } from "#src/users/time-zone.ts";

/** As the contract says; it can check one request, and many small ones could add up to more. */
const MAX_CATEGORIES = 100;
const MAX_TYPES = 200;

/**
 * Checks what the contract's rules cannot say about preferences as they shall be stored; only what `changed` names, so
 * that an old value never stands in the way of another change. Throws INVALID_REQUEST naming the field.
 */
export function checkPreferences(preferences: Preferences, changed: readonly string[]): void {
  const { timeZone, language } = preferences;
  if (changed.includes("time_zone") && timeZone !== undefined && !isTimeZone(timeZone)) {
    throw invalidField("preferences.time_zone", "is not a zone of the IANA database, such as Europe/Lisbon");
  }
  if (changed.includes("language") && language !== undefined && !isLanguage(language)) {
    throw invalidField("preferences.language", "is not a BCP 47 language tag, such as pt-BR");
  }
  checkCount("categories", preferences.categories, MAX_CATEGORIES, changed);
  checkCount("types", preferences.types, MAX_TYPES, changed);
}

function checkCount(field: string, entries: object, max: number, changed: readonly string[]): void {
  if (Object.keys(entries).length > max && changed.some((path) => path.startsWith(`${field}.`))) {
    throw invalidField(`preferences.${field}`, `would have more than ${max} entries; remove some first`);
  }
}

function isLanguage(tag: string): boolean {
  try {
    return Intl.getCanonicalLocales(tag).length === 1;
  } catch {
    return false;
  }
}
