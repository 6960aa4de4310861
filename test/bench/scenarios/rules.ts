import { medianOf } from "../figures.ts";
import { ruledUsers } from "../ruled-users.ts";
import type { Figures, Scenario } from "../scenario.ts";
import { loadOf, through } from "./end-to-end.ts";

/** Each way so often, in turn: what changes on the machine meanwhile falls on both. */
const TURNS = 3;

/** The limits count, and are out of reach. */
const LIMITS = { POSTHORN_TENANT_MAX_PER_MINUTE: "100000000" };

/**
 * What the rules cost: `end-to-end` to users without any, and to users who each have all of them, in turn. None holds
 * anything back, or it would not arrive; what is not batchable and not over the cap pays for being asked. The share is of
 * the rate, the median of either way.
 */
export const rules: Scenario = {
  name: "rules",
  about: "end-to-end to users without preferences and to users with every rule, none of which holds anything back",
  goals: [{ figure: "rateShare", better: "less", bar: 0.1, aim: 0.05 }],
  async run(lab) {
    const load = { ...loadOf(lab), measureMs: Math.round((lab.wishes.seconds * 1000) / 2) };
    const plain: Figures[] = [];
    const ruled: Figures[] = [];
    const faults: string[] = [];
    const ways = [
      { name: "without rules", found: plain, run: () => through(lab, load, {}) },
      {
        name: "with every rule",
        found: ruled,
        run: () => through(lab, load, LIMITS, (server) => ruledUsers(lab.services.databaseUrl, server, load.users)),
      },
    ];
    for (let turn = 0; turn < TURNS; turn++) {
      // Who goes first changes, too: the database grows from run to run.
      for (const { name, found, run } of turn % 2 === 0 ? ways : ways.toReversed()) {
        lab.say(`rules: ${name}, ${turn + 1} of ${TURNS}`);
        const { figures, faults: wrong } = await run();
        found.push(figures);
        faults.push(...wrong.map((fault) => `${name}: ${fault}`));
      }
    }
    const [rate, plainRate] = [medianOf(ruled, "rate"), medianOf(plain, "rate")];
    const [cpuUsEach, plainCpu] = [medianOf(ruled, "cpuUsEach"), medianOf(plain, "cpuUsEach")];
    return {
      figures: {
        rate,
        cpuUsEach,
        without: { rate: plainRate, cpuUsEach: plainCpu },
        rateShare: 1 - rate / plainRate,
        costShare: cpuUsEach / plainCpu - 1,
        rates: { without: plain.map((each) => each.rate), with: ruled.map((each) => each.rate) },
      },
      peers: {},
      ratios: {},
      faults,
    };
  },
};
