// What batches and digests should do: the reference that test/batches/model.test.ts holds the product against. Times in ms.

export const USERS = ["ann", "bob"] as const;
export const TYPES = ["heap", "lead", "slide"] as const;
const HOUR = 3_600_000;
const MAX_DIGEST = 500;

export type Wish = { enabled: boolean; maxSize: number; digest: boolean };
export type Rule = {
  batchable: boolean;
  maxSize: number;
  windowMs: number;
  leading: boolean;
  sliding: boolean;
  maxWindowMs: number;
};
export type Item = { user: string; type: string; expiresAt: number | undefined };
/** A batch is what joined it, of which some have ended. */
type Batch = {
  key: string;
  user: string;
  type: string;
  flushAt: number;
  latest: number;
  joined: number;
  maxSize: number;
  live: Set<string>;
};
type Plan = Pick<Batch, "key" | "type" | "flushAt" | "latest" | "maxSize"> & { leading: boolean };

export const FIRST_WISH: Wish = { enabled: true, maxSize: 3, digest: false };
export const FIRST_RULES: Record<string, Rule> = {
  heap: rule({}),
  lead: rule({ leading: true }),
  slide: rule({ sliding: true, windowMs: 300_000, maxWindowMs: 450_000 }),
};

export function rule(own: Partial<Rule>): Rule {
  return {
    ...{ batchable: true, maxSize: 20, windowMs: 600_000, leading: false, sliding: false, maxWindowMs: 900_000 },
    ...own,
  };
}

export class Model {
  readonly items = new Map<string, Item>();
  /** What has arrived, each with what it tells of. */
  readonly arrived: string[][] = [];
  readonly cancelled = new Set<string>();
  readonly expired = new Set<string>();
  readonly #wishes = new Map<string, Wish>(USERS.map((user) => [user, FIRST_WISH]));
  readonly #rules = new Map<string, Rule>(Object.entries(FIRST_RULES));
  readonly #since = new Map<string, number>();
  /** Whose hourly cap has no room for what may go into a digest. */
  readonly #capped = new Set<string>();
  readonly #open = new Map<string, Batch>();
  #full: Batch[] = [];

  get open(): readonly Batch[] {
    return [...this.#open.values()];
  }

  get batches(): readonly Batch[] {
    return [...this.#open.values(), ...this.#full];
  }

  /** Decides what comes in one chunk. */
  decide(ids: readonly string[], now: number): void {
    const planned = ids.toSorted().flatMap((id) => {
      const item = this.#itemOf(id);
      const expiresAt = item.expiresAt ?? Number.POSITIVE_INFINITY;
      const plan = expiresAt <= now ? "expired" : this.#planFor(id, item, now);
      if (plan === "expired" || (plan !== undefined && expiresAt <= plan.flushAt)) this.expired.add(id);
      else if (plan === undefined) this.#goes([id], now);
      else return [{ id, user: item.user, plan }];
      return [];
    });
    for (const [key, all] of Map.groupBy(planned, ({ plan }) => plan.key)) {
      const user = all[0]?.user ?? "";
      // Nobody leads whom the cap refuses, and nobody follows.
      const refused = !this.#open.has(key) && this.#capped.has(user) ? all.filter(({ plan }) => plan.leading) : [];
      if (refused.length > 0)
        this.#goes(
          refused.map(({ id }) => id),
          now,
        );
      const group = all.filter((each) => !refused.includes(each));
      const leader = this.#open.has(key) ? undefined : group.find(({ plan }) => plan.leading);
      if (leader !== undefined) {
        this.arrived.push([leader.id]);
        this.#open.set(key, { ...leader.plan, user: leader.user, joined: 0, live: new Set() });
      }
      for (let rest = group.filter((each) => each !== leader); rest.length > 0; ) rest = this.#join(key, rest, now);
    }
  }

  /** What comes together, or alone, unless the cap sends it into the digest: each of them. */
  #goes(ids: readonly string[], now: number): void {
    const { user } = this.#itemOf(ids[0] ?? "");
    if (!this.#capped.has(user)) {
      this.arrived.push([...ids]);
      return;
    }
    const flushAt = (Math.floor(now / HOUR) + 1) * HOUR;
    const plan = {
      key: `${user} digest`,
      type: "digest",
      flushAt,
      latest: flushAt,
      maxSize: MAX_DIGEST,
      leading: false,
    };
    const late = ids.filter((id) => (this.#itemOf(id).expiresAt ?? Number.POSITIVE_INFINITY) <= flushAt);
    for (const id of late) this.expired.add(id);
    const joining = ids.filter((id) => !late.includes(id)).map((id) => ({ id, user, plan }));
    if (joining.length > 0) this.#join(plan.key, joining, now);
  }

  /** Those that the batch has no room for. */
  #join<T extends { id: string; user: string; plan: Plan }>(key: string, group: readonly T[], now: number): T[] {
    const [first] = group as readonly [T];
    const flushAt = Math.min(...group.map(({ plan }) => plan.flushAt));
    const latest = Math.min(...group.map(({ plan }) => plan.latest));
    const opened = { ...first.plan, user: first.user, flushAt, latest, joined: 0, live: new Set<string>() };
    const batch = this.#open.get(key) ?? opened;
    // What slides moves with each that joins; else the first end that one of them wants holds.
    if (batch !== opened && latest > flushAt) batch.flushAt = Math.min(batch.latest, Math.max(batch.flushAt, flushAt));
    else batch.flushAt = Math.min(batch.flushAt, flushAt);
    const joining = group.slice(0, batch.maxSize - batch.joined);
    for (const { id } of joining) {
      batch.live.add(id);
      if (!this.#since.has(id)) this.#since.set(id, now);
    }
    batch.joined += joining.length;
    if (batch.joined < batch.maxSize) this.#open.set(key, batch);
    else {
      this.#open.delete(key);
      this.#full.push({ ...batch, flushAt: Math.min(batch.flushAt, now) });
    }
    return group.slice(joining.length);
  }

  #planFor(id: string, { user, type, expiresAt }: Item, now: number): Plan | undefined {
    const { enabled, maxSize: most, digest } = this.#wishes.get(user) ?? FIRST_WISH;
    const since = this.#since.get(id);
    const from = Math.min(since ?? now, now);
    if (digest) {
      const due = (Math.floor(from / HOUR) + 1) * HOUR;
      const flushAt = Math.max(due, now);
      const key = `${user} ${due > now ? "digest" : "late"}`;
      return { key, type: "digest", flushAt, latest: flushAt, maxSize: MAX_DIGEST, leading: false };
    }
    const { batchable, maxSize, windowMs, leading, sliding, maxWindowMs } = this.#rules.get(type) as Rule;
    const size = Math.min(most, maxSize);
    if (!batchable || !enabled || size < 2) return undefined;
    const flushAt = Math.max(now, from + windowMs);
    const latest = sliding ? Math.max(now, from + maxWindowMs) : flushAt;
    if (expiresAt !== undefined && expiresAt <= latest) return undefined;
    return { key: `${user} ${type}`, type, flushAt, latest, maxSize: size, leading: leading && since === undefined };
  }

  close(now: number): void {
    const due = this.batches.filter(({ flushAt }) => flushAt <= now);
    this.#forget(due);
    for (const { live, type } of due) {
      const late = [...live].filter((id) => (this.#itemOf(id).expiresAt ?? Number.POSITIVE_INFINITY) <= now);
      for (const id of late) this.expired.add(id);
      const left = [...live].filter((id) => !late.includes(id));
      if (left.length === 0) continue;
      if (type === "digest") this.arrived.push(left);
      else this.#goes(left, now);
    }
  }

  cap(user: string, isFull: boolean): void {
    if (isFull) this.#capped.add(user);
    else this.#capped.delete(user);
  }

  /** One that is open closes at the next tick, and nobody joins it any more. */
  closeEarly(batch: Batch, now: number): void {
    if (batch.flushAt <= now) return;
    this.#forget([batch]);
    this.#full.push({ ...batch, flushAt: now });
  }

  cancel(id: string): void {
    for (const { live } of this.batches) if (live.delete(id)) this.cancelled.add(id);
  }

  wish(user: string, wish: Wish, now: number): void {
    const own = this.batches.filter((batch) => batch.user === user);
    this.#wishes.set(user, wish);
    this.#again(own, now);
  }

  /**
   * Digests stand, but for who would be in another by now; so does a batch that nobody is in, because members are what is
   * looked for.
   */
  change(type: string, changed: Rule, now: number): void {
    const own = this.batches.filter((batch) => batch.type === type && batch.live.size > 0);
    this.#rules.set(type, changed);
    const leaving = this.batches.flatMap((batch) => {
      const theirs = [...batch.live].filter((id) => batch.type === "digest" && this.#itemOf(id).type === type);
      return theirs.filter((id) => {
        const stays = this.#planFor(id, this.#itemOf(id), now)?.key === batch.key;
        return !stays && batch.live.delete(id);
      });
    });
    this.#again(own, now, leaving);
  }

  #again(batches: readonly Batch[], now: number, others: readonly string[] = []): void {
    this.#forget(batches);
    this.decide([...batches.flatMap(({ live }) => [...live]), ...others], now);
  }

  #forget(batches: readonly Batch[]): void {
    for (const [key, batch] of this.#open) if (batches.includes(batch)) this.#open.delete(key);
    this.#full = this.#full.filter((batch) => !batches.includes(batch));
  }

  #itemOf(id: string): Item {
    return this.items.get(id) as Item;
  }
}
