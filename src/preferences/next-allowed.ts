import { type Blocks, WEEK } from "./clock-rules.ts";
import type { ZoneClock } from "./zone-clock.ts";

const MINUTE_MS = 60_000;
const DAY_MS = 24 * 60 * MINUTE_MS;
const WEEK_MS = WEEK * MINUTE_MS;

/** Whether the blocks hold something back at this instant. */
export function isBlocked(blocks: Blocks, clock: ZoneClock, instantMs: number): boolean {
  if (blocks.length === 0) return false;
  return blockEnd(blocks, weekMs(instantMs + clock.stretchAt(instantMs).offsetMs)) !== undefined;
}

/**
 * The first instant, not before `fromMs`, at which no block holds anything back. Undefined when the blocks fill the week.
 *
 * Between two changes of a zone's offset its wall clock runs evenly, so the end of a block is so far away as the wall
 * clock says, unless the offset changes before: then the question is asked again at the change.
 */
export function nextAllowed(blocks: Blocks, clock: ZoneClock, fromMs: number): number | undefined {
  if (blocks[0]?.[0] === 0 && blocks[0][1] === WEEK) return undefined;
  for (let at = fromMs; ; ) {
    const stretch = clock.stretchAt(at);
    const wall = weekMs(at + stretch.offsetMs);
    const end = blockEnd(blocks, wall);
    if (end === undefined) return at;
    at = Math.min(at + end - wall, stretch.until);
  }
}

/** Where in the week a wall clock stands, in ms from Sunday 00:00. `localMs` is ms since 1970 as if the zone were UTC. */
function weekMs(localMs: number): number {
  // 1970-01-01 was a Thursday.
  const into = (localMs + 4 * DAY_MS) % WEEK_MS;
  return into < 0 ? into + WEEK_MS : into;
}

function blockEnd(blocks: Blocks, wallMs: number): number | undefined {
  const minute = wallMs / MINUTE_MS;
  for (const [start, end] of blocks) {
    if (minute < start) return undefined;
    if (minute < end) return end * MINUTE_MS;
  }
  return undefined;
}
