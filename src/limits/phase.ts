import { createHash } from "node:crypto";

/** How far a user's turns are shifted, 0 to 65,535: the same at any time and in any process, and in the script. */
export function phaseOf(userId: string): number {
  return createHash("sha1").update(userId).digest().readUInt16BE(0);
}
