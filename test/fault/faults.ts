import { killed } from "./faults/killed.ts";
import type { FaultTest } from "./lab/lab.ts";

/** Every fault there is a test for. A new one: a file in faults/ and its line here. */
export const faults: readonly FaultTest[] = [killed];
