import { fenceNames, isDrawnFrom, readVersions, sharedFence } from "#src/preferences/fence.ts";
import { plain } from "#src/store/arrays.ts";
import type { Tx } from "#src/store/store.ts";
import type { Result } from "./record.ts";

/**
 * What came of hand-overs, but that those which were to wait by rules of their recipients that have changed since are given
 * back, to be asked again at once: a change passes over what somebody has claimed. `outdated`: these recipients. Takes the
 * fence of those that wait (preferences/fence.ts), so call it before the transaction locks any notification.
 */
export async function byPresentRules(
  tx: Tx,
  tenantId: string,
  results: readonly Result[],
): Promise<{ results: readonly Result[]; outdated: string[] }> {
  const users = new Set(results.flatMap(({ kind, claimed }) => (kind === "held" ? [claimed.userId] : [])));
  if (users.size === 0) return { results, outdated: [] };
  await tx`select ${sharedFence(tx, fenceNames(tenantId, ["", ...users]))}`;
  const present = await readVersions(tx, tenantId, [...users]);
  const outdated = new Set<string>();
  const standing = results.map((result): Result => {
    const { claimed } = result;
    const rules = present.get(claimed.userId);
    if (result.kind !== "held" || rules === undefined || isDrawnFrom(result.hold.rules, rules)) return result;
    outdated.add(claimed.userId);
    return { claimed, kind: "back", inDoubt: claimed.inDoubt };
  });
  return { results: standing, outdated: [...outdated] };
}

/**
 * What came of hand-overs, but that those which were to wait, or to wait no more, by an expiry that their sender has changed
 * since are given back, to be asked again at once: a change passes over what somebody has claimed. Of notifications that
 * the transaction has locked.
 */
export async function byPresentExpiry(
  tx: Tx,
  tenantId: string,
  results: readonly Result[],
): Promise<readonly Result[]> {
  const ids = results.flatMap(({ kind, claimed }) =>
    kind === "held" || kind === "expired" ? [claimed.notificationId] : [],
  );
  if (ids.length === 0) return results;
  const rows = await tx<{ id: string; expiresAt: Date | null }[]>`
    select id, expires_at as "expiresAt" from notifications
    where tenant_id = ${tenantId} and id = any(${plain([...new Set(ids)])}::uuid[])`;
  const present = new Map(rows.map(({ id, expiresAt }) => [id, expiresAt?.getTime()]));
  return results.map((result): Result => {
    const { kind, claimed, expiresAt } = result;
    if ((kind !== "held" && kind !== "expired") || expiresAt === undefined) return result;
    if (present.get(claimed.notificationId) === expiresAt?.getTime()) return result;
    return { claimed, kind: "back", inDoubt: claimed.inDoubt };
  });
}
