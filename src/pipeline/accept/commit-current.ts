import { StaleContract } from "#src/types/payload/stale.ts";
import type { Stored } from "./commit.ts";
import type { Draft } from "./prepare.ts";

type Judged = { readonly draft: Pick<Draft, "type" | "contractId"> };

/**
 * Commits a group without those whose payload was judged by a contract that is not current any more: these are refused
 * with StaleContract, each for itself, and the others go on in a transaction that does not hold them. As often as it takes,
 * which is at most once for each type.
 */
export async function commitCurrent<S extends Judged>(
  group: readonly S[],
  commit: (current: readonly S[]) => Promise<readonly Stored[]>,
): Promise<Stored[]> {
  const outcomes = new Map<S, Stored>();
  for (let current = group; current.length > 0; current = group.filter((each) => !outcomes.has(each))) {
    try {
      const stored = await commit(current);
      for (const [index, each] of current.entries()) outcomes.set(each, stored[index] ?? missing());
    } catch (error) {
      if (!(error instanceof StaleContract)) throw error;
      const stale = current.filter(({ draft }) => draft.contractId !== undefined && error.types.includes(draft.type));
      if (stale.length === 0) throw error;
      for (const each of stale) outcomes.set(each, { kind: "refused", fault: error });
    }
  }
  return group.map((each) => outcomes.get(each) ?? missing());
}

function missing(): never {
  throw new Error("a submission without a result");
}
