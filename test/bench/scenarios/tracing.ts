import { once } from "node:events";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { medianOf } from "../figures.ts";
import type { Figures, Scenario } from "../scenario.ts";
import { loadOf, through } from "./end-to-end.ts";

/** Each way so often, in turn: what changes on the machine meanwhile falls on both. */
const TURNS = 3;

/** As by default in production: of those whose caller did not decide. */
const SAMPLE_RATIO = "0.05";

/**
 * What tracing costs: `end-to-end` without a collector and with one that takes everything, in turn. The share is by
 * processor time for each notification, which wavers less than the rate; the median of either way.
 */
export const tracing: Scenario = {
  name: "tracing",
  about: "end-to-end with and without a collector, at production's sampling",
  goals: [{ figure: "costShare", better: "less", bar: 0.1, aim: 0.05 }],
  async run(lab) {
    const load = { ...loadOf(lab), measureMs: Math.round((lab.wishes.seconds * 1000) / 2) };
    await using collector = await startCollector();
    const settings = { POSTHORN_TRACE_SAMPLE_RATIO: SAMPLE_RATIO, POSTHORN_OTLP_ENDPOINT: collector.url };
    const without: Figures[] = [];
    const traced: Figures[] = [];
    const faults: string[] = [];
    for (let turn = 0; turn < TURNS; turn++) {
      for (const [found, own] of [
        [without, {}],
        [traced, settings],
      ] as const) {
        lab.say(`tracing: ${own === settings ? "with" : "without"} a collector, ${turn + 1} of ${TURNS}`);
        const { figures, faults: wrong } = await through(lab, load, own);
        found.push(figures);
        faults.push(...wrong);
      }
    }
    if (collector.bytes() === 0) faults.push("the collector got nothing");
    const [rate, rateWithout] = [medianOf(traced, "rate"), medianOf(without, "rate")];
    const [cpuUsEach, cpuWithout] = [medianOf(traced, "cpuUsEach"), medianOf(without, "cpuUsEach")];
    return {
      figures: {
        rate,
        cpuUsEach,
        without: { rate: rateWithout, cpuUsEach: cpuWithout },
        costShare: cpuUsEach / cpuWithout - 1,
        rateShare: 1 - rate / rateWithout,
        collectedKb: collector.bytes() / 1024,
      },
      peers: {},
      ratios: {},
      faults,
    };
  },
};

/** Takes what is sent by OTLP over HTTP and forgets it. Its own work is not counted, as a collector's is not the server's. */
async function startCollector(): Promise<AsyncDisposable & { url: string; bytes(): number }> {
  let bytes = 0;
  const server = createServer((request, response) => {
    request.on("data", (chunk: Buffer) => {
      bytes += chunk.length;
    });
    request.on("end", () => response.writeHead(200, { "content-type": "application/json" }).end("{}"));
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    bytes: () => bytes,
    async [Symbol.asyncDispose]() {
      server.closeAllConnections();
      server.close();
      await once(server, "close");
    },
  };
}
