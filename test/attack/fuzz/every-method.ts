import type { DescMethod } from "@bufbuild/protobuf";
import fc from "fast-check";
import { Code } from "#src/errors.ts";
import { METHODS } from "../../support/contract.ts";
import type { Answer } from "./answer.ts";
import { type Caller, plainSteps, type Step } from "./steps.ts";

/** What makes something for the others to be about comes first, and what ends it last. */
const MAKES = /^(Create|Upsert|Import|Load|Add|Send|Push)/;
/** About what waits, which a change of anybody's preferences may end. */
const OF_WAITING = /^(Update|Cancel)Notification$/;
const ENDS = /^(Delete|Revoke|Remove|Clear|Cancel|Reset|Unsubscribe)/;

/** Whom a method is for is in the access rules; here they are tried. */
const CALLERS: readonly Caller[] = ["key", "operator-in-tenant", "operator", "user"];
const ROUNDS = 2;
const TRIES = 12;

/**
 * Calls every method, the same way for the same seed: with a hostile request in each round, and with valid ones until one
 * has succeeded, or too many have not. What makes things makes more in each round.
 */
export async function callEveryMethod(
  seed: number,
  send: (step: Step) => Promise<Answer>,
  mend: () => Promise<void>,
): Promise<void> {
  const methods = METHODS.toSorted((a, b) => stageOf(a) - stageOf(b));
  const succeeded = new Set<DescMethod>();
  const trying = async (method: DescMethod, caller: Caller, drawn: { seed: number }) => {
    for (const step of fc.sample(plainSteps(method, "valid", caller), { ...drawn, numRuns: TRIES })) {
      const { outcome } = await send(step);
      if (outcome === 0) succeeded.add(method);
      if (outcome === 0 || outcome === Code.PERMISSION_DENIED) return;
    }
  };
  for (let round = 0; round < ROUNDS; round++) {
    for (const [n, method] of methods.entries()) {
      await mend();
      const drawn = { seed: seed + round * methods.length + n };
      for (const step of fc.sample(plainSteps(method, "hostile", "key"), { ...drawn, numRuns: 1 })) await send(step);
      if (MAKES.test(method.name)) succeeded.delete(method);
      for (const caller of CALLERS) if (!succeeded.has(method)) await trying(method, caller, drawn);
    }
  }
}

function stageOf({ name }: DescMethod): number {
  if (MAKES.test(name)) return 0;
  if (OF_WAITING.test(name)) return 1;
  return ENDS.test(name) ? 3 : 2;
}
