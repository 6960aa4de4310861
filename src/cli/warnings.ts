// What a person should know although it was done: on standard error, so that results stay what they are.
import type { Warning } from "#gen/posthorn/v1/warning_pb.ts";
import { plain, when } from "./print.ts";
import type { World } from "./world.ts";

/** Each once, however often it is there. */
export function tellWarnings(world: World, warnings: readonly Warning[]): void {
  for (const line of new Set(warnings.map(lineOf))) world.err(`warning: ${line}`);
}

function lineOf({ type, ...about }: Warning): string {
  return `the type ${plain(type)} is ${deprecationWords(about)}`;
}

/** "deprecated, refused from 2027-01-01T00:00:00Z on; send parcel instead" */
export function deprecationWords({ replacement, sunsetTime }: Pick<Warning, "replacement" | "sunsetTime">): string {
  const until = sunsetTime === undefined ? "" : `, refused from ${when(sunsetTime)} on`;
  return `deprecated${until}${replacement === "" ? "" : `; send ${plain(replacement)} instead`}`;
}
