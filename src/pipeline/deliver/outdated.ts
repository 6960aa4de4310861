import { fenceNames, isDrawnFrom, readVersions, sharedFence } from "#src/preferences/fence.ts";
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
