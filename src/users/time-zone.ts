/** Whether the runtime's tz database knows the name; old names ("Asia/Calcutta") count, offsets ("+01:00") do not. */
export function isTimeZone(name: string): boolean {
  if (NAMES.has(name)) return true;
  if (!/^[A-Za-z]/.test(name)) return false;
  try {
    new Intl.DateTimeFormat("en", { timeZone: name });
    return true;
  } catch {
    return false;
  }
}

// Spares an import of a million users as many formatters; the old names are left to the slower way.
const NAMES: ReadonlySet<string> = new Set(Intl.supportedValuesOf("timeZone"));
