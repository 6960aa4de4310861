import { test } from "vitest";
import { faults } from "./faults.ts";
import { shortRound } from "./short-round.ts";

// Most of a fault is waiting: for a node to start, for a silence to be noticed. So they wait side by side.
test.concurrent.for(faults.filter(({ alone }) => alone !== true))("$name: $about", { timeout: 300_000 }, shortRound);
