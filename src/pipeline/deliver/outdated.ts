import { fenceNames, isDrawnFrom, type RulesVersion, sharedFence } from "#src/preferences/fence.ts";
import { texts } from "#src/store/arrays.ts";
import type { Tx } from "#src/store/store.ts";
import type { Result } from "./queries.ts";

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
  const rows = await tx<(RulesVersion & { userId: string })[]>`
    select asked.id as "userId",
      coalesce((select p.xmin::text from preferences p where p.tenant_id = ${tenantId} and p.user_id = asked.id), '0')
        as user,
      coalesce((select d.xmin::text from default_preferences d where d.tenant_id = ${tenantId}), '0') as tenant,
      coalesce((select u.time_zone from users u where u.tenant_id = ${tenantId} and u.id = asked.id), '') as zone
    from unnest(${texts([...users])}::text[]) as asked (id)`;
  const present = new Map(rows.map(({ userId, ...rules }) => [userId, rules]));
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
