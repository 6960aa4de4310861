import type { DueTenant } from "#src/schedules/due.ts";

/** Up to `size` due schedules of a tenant, of one priority: sent in one transaction. */
export type Turn = { tenantId: string; lane: number; size: number };

/** More in one transaction gain nothing, and are held for longer from whoever wants to change them. */
const LARGEST = 100;

/**
 * Who sends how many, in which order: the more urgent before the others, and among those of one priority the tenants in
 * turn, so that one's thousands do not stand before another's few. At most `limit` in all.
 */
export function turnsOf(due: readonly Omit<DueTenant, "suspended">[], limit: number): Turn[] {
  const turns: Turn[] = [];
  let left = limit;
  for (const tenants of Map.groupBy(due, ({ lane }) => lane).values()) {
    if (left === 0) break;
    const share = Math.min(LARGEST, Math.ceil(left / tenants.length));
    let waiting = tenants.map((tenant) => ({ ...tenant }));
    while (waiting.length > 0 && left > 0) {
      for (const tenant of waiting) {
        const size = Math.min(share, tenant.count, left);
        if (size === 0) break;
        turns.push({ tenantId: tenant.tenantId, lane: tenant.lane, size });
        tenant.count -= size;
        left -= size;
      }
      waiting = waiting.filter(({ count }) => count > 0);
    }
  }
  return turns;
}
