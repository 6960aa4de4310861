import { setTimeout as delay } from "node:timers/promises";
import type { FaultTest } from "../lab/lab.ts";
import { lasting, throughOutage, throughWays, type Ways } from "../lab/outage.ts";

/** Two pings unanswered, and the third's turn. */
const SILENCE_NOTICED_WITHIN_MS = 8000;

const WAYS: Ways = {
  async restarted({ ground: { servers } }) {
    await servers.nats.end("SIGTERM");
    await servers.nats.start();
  },
  async killed({ ground: { servers } }) {
    await servers.nats.end("SIGKILL");
    await servers.nats.start();
  },
  async paused({ ground: { servers }, vigil, scale }) {
    await servers.nats.pause();
    await vigil.ready(false, SILENCE_NOTICED_WITHIN_MS);
    await delay(lasting(30, scale, 0));
    await servers.nats.resume();
  },
  async absent({ ground: { servers }, vigil, scale }) {
    await servers.nats.end("SIGTERM");
    await vigil.ready(false, 2000);
    await delay(lasting(60, scale));
    await servers.nats.start();
  },
  async reset({ ground: { network } }) {
    network.nats.cut("rst");
  },
};

/** What is accepted while NATS is away is queued by nobody but the reconciler. In the other ways NATS may have it already. */
const GUARDING = ["absent"];

export const natsAway: FaultTest = {
  name: "nats-away",
  about: "NATS restarted, killed, paused, absent for a minute, its connections reset",
  run: (lab, options) => throughOutage(lab, options, {}, (scene) => throughWays(scene, options, WAYS, GUARDING)),
};
