/** Slots of one lane, taken for a shard. */
export type LaneSlots = { take(shard: number, isLittle: boolean): Promise<Slot> };

/** A spare one is for what was little when it was asked for, and not for what has come since. */
export type Slot = { isSpare: boolean; give(): void };

/** Of the spare slots a shard may have: the one that decides, and the one behind it. */
const SPARE_EACH = 2;

type Asking = { shard: number; isLittle: boolean; begin(slot: Slot): void };
/** Slots at work, by kind. */
type Held = { usual: number; spare: number };

/**
 * So many slots, given out in the order of asking, of which each shard may have its share: all of them while no other
 * has or wants any, and an equal part, of few slots one, as soon as others do; what is left over by that, one each, goes
 * to who asks first. And `spare` more for what is little beside others: one notification begins at once beside chunks of
 * hundreds, and costs them next to nothing. Alone it waits for one of the usual slots, and what comes meanwhile goes with
 * it, which costs less than many chunks of few.
 */
export function laneSlots(size: number, spare: number): LaneSlots {
  const shards = new Map<number, Held>();
  const all: Held = { usual: 0, spare: 0 };
  const asking: Asking[] = [];

  /** Shards that have or want a slot, with one that asks. */
  function busy(shard: number): number {
    const each = new Set(shards.keys()).add(shard);
    for (const other of asking) each.add(other.shard);
    return each.size;
  }

  function kindFor({ shard, isLittle }: Asking, own: Held): keyof Held | undefined {
    const among = busy(shard);
    if (among > 1 && isLittle && all.spare < spare && own.spare < SPARE_EACH) return "spare";
    return all.usual < size && own.usual < shareOf(own, among) ? "usual" : undefined;
  }

  function shareOf(own: Held, among: number): number {
    const share = Math.max(1, Math.floor(size / among));
    const above = [...shards.values()].filter((other) => other !== own && other.usual > share).length;
    return share * among + above < size ? share + 1 : share;
  }

  /** Whether it could begin. */
  function begins(one: Asking): boolean {
    const own = shards.get(one.shard) ?? { usual: 0, spare: 0 };
    const kind = kindFor(one, own);
    if (kind === undefined) return false;
    shards.set(one.shard, own);
    own[kind]++;
    all[kind]++;
    one.begin({
      isSpare: kind === "spare",
      give() {
        own[kind]--;
        all[kind]--;
        if (own.usual + own.spare === 0) shards.delete(one.shard);
        // Handed on, so that nobody who comes now gets in between.
        handOn();
      },
    });
    return true;
  }

  function handOn(): void {
    // Each stays among those who ask until it has begun, for it is what keeps another from being alone.
    for (const next of [...asking]) if (begins(next)) asking.splice(asking.indexOf(next), 1);
  }

  return {
    take: (shard, isLittle) =>
      new Promise((begin) => {
        const one = { shard, isLittle, begin };
        if (!begins(one)) asking.push(one);
      }),
  };
}
