import { test } from "vitest";
import { faults } from "./faults.ts";
import { shortRound } from "./short-round.ts";

// Faults within this process, one after the other.
test.for(faults.filter(({ alone }) => alone === true))("$name: $about", { timeout: 300_000 }, shortRound);
