/** A user who looked then. */
export type Waiting = { userId: string; at: Date };

/**
 * Who waits to be written, `most` users of all tenants at most. Where there are as many, one whose tenant has fewer than
 * its share takes the place of the first of the tenant with the most; others are let go.
 */
export function waitingUsers(most: number) {
  const tenants = new Map<string, Map<string, Waiting>>();
  let size = 0;

  /** Room for one more of a tenant that has so many. */
  const makeRoom = (has: number): boolean => {
    const all = tenants.size + (has === 0 ? 1 : 0);
    if ((has + 1) * all > most) return false;
    let largest = new Map<string, Waiting>();
    for (const users of tenants.values()) if (users.size > largest.size) largest = users;
    const [first] = largest.keys();
    if (first === undefined || !largest.delete(first)) return false;
    size--;
    return true;
  };

  return {
    has: (tenantId: string, userId: string) => tenants.get(tenantId)?.has(userId) ?? false,
    add(tenantId: string, user: Waiting): void {
      const own = tenants.get(tenantId) ?? new Map<string, Waiting>();
      if (size >= most && !makeRoom(own.size)) return;
      own.set(user.userId, user);
      tenants.set(tenantId, own);
      size++;
    },
    delete(tenantId: string, userId: string): void {
      if (tenants.get(tenantId)?.delete(userId)) size--;
    },
    byTenant: (): [tenantId: string, users: Waiting[]][] =>
      [...tenants].map(([tenantId, users]) => [tenantId, [...users.values()]]),
  };
}
