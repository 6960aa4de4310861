import { LRUCache } from "lru-cache";
import { Temporal } from "temporal-polyfill";

/** A stretch of time in which a zone's clocks run evenly: `from` ≤ instant < `until`, in ms since 1970. */
export type Stretch = { from: number; until: number; offsetMs: number };

/** A zone's clocks. `stretchAt` costs nanoseconds while asked about the same stretch, a Temporal look-up otherwise. */
export type ZoneClock = { readonly zone: string; stretchAt(instantMs: number): Stretch };

/** Hands out one clock per zone, so that all its users share what it has looked up. Zone names must be valid. */
export function zoneClocks(): (zone: string) => ZoneClock {
  const clocks = new LRUCache<string, ZoneClock>({ max: 1000 });
  return (zone) => {
    const known = clocks.get(zone);
    if (known !== undefined) return known;
    const clock = zoneClock(zone);
    clocks.set(zone, clock);
    return clock;
  };
}

export function zoneClock(zone: string): ZoneClock {
  // Now, and what follows while it is looked for a next allowed instant.
  let recent: Stretch[] = [];
  return {
    zone,
    stretchAt(instantMs) {
      for (const stretch of recent) {
        if (stretch.from <= instantMs && instantMs < stretch.until) return stretch;
      }
      const stretch = lookUp(zone, instantMs);
      recent = [stretch, ...recent.slice(0, 3)];
      return stretch;
    },
  };
}

function lookUp(zone: string, instantMs: number): Stretch {
  const at = (ms: number) => Temporal.Instant.fromEpochMilliseconds(ms).toZonedDateTimeISO(zone);
  const here = at(instantMs);
  // "previous" is strictly before, and a stretch begins with its transition.
  const from = at(instantMs + 1).getTimeZoneTransition("previous");
  const until = here.getTimeZoneTransition("next");
  return {
    from: from?.epochMilliseconds ?? Number.NEGATIVE_INFINITY,
    until: until?.epochMilliseconds ?? Number.POSITIVE_INFINITY,
    offsetMs: here.offsetNanoseconds / 1e6,
  };
}
