import { setTimeout as delay } from "node:timers/promises";
import type { FaultTest } from "../lab/lab.ts";
import { lasting, type Scene, throughOutage, throughWays, type Ways } from "../lab/outage.ts";
import type { Direction } from "../lab/proxy.ts";

/** Pings go out every two seconds; the one after two that were not answered ends the connection. */
const NOTICED_WITHIN_MS = 8000;

async function silence({ ground: { network }, vigil, scale }: Scene, direction: Direction): Promise<void> {
  network.nats.silence(direction);
  await vigil.ready(false, NOTICED_WITHIN_MS);
  await delay(lasting(20, scale, 0));
  await network.nats.heal();
}

const WAYS: Ways = {
  "silent to NATS": (scene) => silence(scene, "to-server"),
  "silent from NATS": (scene) => silence(scene, "to-client"),
};

export const natsSilent: FaultTest = {
  name: "nats-silent",
  about: "nothing arrives any more in one direction between a node and NATS",
  run: (lab, options) => throughOutage(lab, options, {}, (scene) => throughWays(scene, options, WAYS)),
};
