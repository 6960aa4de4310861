import { setTimeout as delay } from "node:timers/promises";
import { status } from "@grpc/grpc-js";
import { Reconnect_Cause } from "#gen/posthorn/v1/stream_service_pb.ts";
import type { FaultTest } from "../lab/lab.ts";
import { openLedger, PromisesBroken } from "../lab/ledger.ts";
import { seededRandom } from "../lab/random.ts";

const GONE_WITHIN_MS = 15_000;

/** The product's own times at scale 1; a short round has no patience. */
const ownTimes = { POSTHORN_STREAM_DRAIN_MS: "8000", POSTHORN_SHUTDOWN_DRAIN_MS: "15000" };
const inHaste = { POSTHORN_STREAM_DRAIN_MS: "1000", POSTHORN_SHUTDOWN_DRAIN_MS: "15000" };

/** Below this share of the rate that is asked for the load was not what this is about; two cores reach no more for sure. */
const RATE_REACHED = 0.6;

/**
 * A deploy: one of two nodes is asked to stop under full load. No call fails but with UNAVAILABLE, every stream is told to go
 * elsewhere and goes on there, and the process ends by itself.
 */
export const drained: FaultTest = {
  name: "drained",
  about:
    "SIGTERM of one of two nodes with 2,000 streams, asked for 2,000 sends a second and at least 1,200 of them done",
  async run(lab, { seed, scale }) {
    const site = await lab.site(["a", "b"], scale < 0.5 ? inHaste : ownTimes, { asShipped: true });
    const streams = Math.max(40, Math.round(2000 * scale));
    const perSecond = Math.max(40, Math.round(2000 * scale));
    const ledger = await openLedger(lab, site, { seed, users: streams, perSecond, deadlineMs: 30_000 });
    const leaving = seededRandom(seed).int(0, 1);
    const broken: string[] = [];
    let told = 0;
    const stopping = async () => {
      await delay(1500);
      lab.say(`stopping ${leaving}`);
      const open = ledger.readers.openAt(leaving);
      const before = ledger.readers.cut;
      const { code, signal, ms } = (await site.nodes[leaving]?.stop()) ?? { code: null, signal: null, ms: 0 };
      if (code !== 0) broken.push(`it ended with ${signal ?? `exit code ${code}`}`);
      if (ms > GONE_WITHIN_MS) broken.push(`it took ${Math.round(ms)} ms to stop`);
      lab.say(`stopped ${leaving} within ${Math.round(ms)} ms`);
      told = ledger.readers.reconnects.get(Reconnect_Cause.DRAIN) ?? 0;
      if (told < open) broken.push(`${told} of ${open} streams were told to go elsewhere`);
      if (ledger.readers.cut > before) broken.push(`${ledger.readers.cut - before} streams were cut without a word`);
      return ms;
    };
    const stopped = stopping();
    const began = performance.now();
    await ledger.send(perSecond * 3, stopped);
    const rate = Math.round((ledger.calls / (performance.now() - began)) * 1000);
    const others = [...ledger.failures].filter(([code]) => code !== status.UNAVAILABLE);
    if (others.length > 0)
      broken.push(`calls failed with ${others.map(([code, n]) => `code ${code} (${n})`).join(", ")}`);
    if (broken.length > 0) throw new PromisesBroken(broken);
    if (scale >= 0.5 && rate < RATE_REACHED * perSecond)
      throw new Error(`${rate} of ${perSecond} calls a second were reached: the machine is too slow for this scale`);
    return { rate, told, stopMs: Math.round(await stopped), ...(await ledger.verify()) };
  },
};
