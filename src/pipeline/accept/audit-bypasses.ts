import { plain, texts } from "#src/store/arrays.ts";
import type { Tx } from "#src/store/store.ts";
import type { Accepted, Submission } from "./submission.ts";

/**
 * One entry for the notifications of a call, and one for its fan-outs: of many, the first and the last with their count. A
 * call whose Sends are stored by several commits has them for each.
 */
export async function auditBypasses(tx: Tx, tenantId: string, accepted: Accepted): Promise<void> {
  const bypasses = [...accepted].flatMap(([{ bypass, fanout, actor }, { rows }]) =>
    bypass === undefined
      ? []
      : [{ ...bypass, actor, fanouts: fanout ? [fanout.id] : [], ids: rows.map(({ id }) => id) }],
  );
  if (bypasses.length === 0) return;
  const entries = [...Map.groupBy(bypasses, ({ callId }) => callId).values()].flatMap((ofCall) => [
    ...entryFor("notification", ofCall, ({ ids }) => ids),
    ...entryFor("fanout", ofCall, ({ fanouts }) => fanouts),
  ]);
  if (entries.length === 0) return;
  await tx`
    insert into audit_entries (tenant_id, id, actor, action, target, reason)
    select ${tenantId}, id, actor, 'send.bypass_rate_limit', target, reason
    from unnest(
      ${plain(entries.map((entry) => entry.id))}::uuid[],
      ${texts(entries.map((entry) => entry.actor))}::text[],
      ${texts(entries.map((entry) => entry.target))}::text[],
      ${texts(entries.map((entry) => entry.reason))}::text[]
    ) as t (id, actor, target, reason)`;
}

function entryFor<T extends NonNullable<Submission["bypass"]> & { actor: string }>(
  kind: "notification" | "fanout",
  ofCall: readonly T[],
  idsOf: (each: T) => readonly string[],
): { id: string; actor: string; target: string; reason: string }[] {
  const making = ofCall.filter((each) => idsOf(each).length > 0);
  const ids = making.flatMap(idsOf).sort();
  const [first] = making;
  if (first === undefined) return [];
  const many = ids.length > 1;
  return [
    {
      id: first.auditIds[kind],
      actor: first.actor,
      target: many ? `${kind}s:${ids[0]}..${ids.at(-1)}` : `${kind}:${ids[0]}`,
      reason: many ? `${ids.length} ${kind}s` : "",
    },
  ];
}
