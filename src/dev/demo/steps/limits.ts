import { setTimeout as delay } from "node:timers/promises";
import { timestampDate } from "@bufbuild/protobuf/wkt";
import { Reason, ReasonSchema, Status } from "#gen/posthorn/v1/notification_pb.ts";
import { SendService } from "#gen/posthorn/v1/send_service_pb.ts";
import { StreamService } from "#gen/posthorn/v1/stream_service_pb.ts";
import type { Step } from "../scene.ts";
import { must } from "../story.ts";
import { watch } from "../watch.ts";

/** Development's burst limit of one user (POSTHORN_USER_BURST). */
const BURST = 5;
const WINDOW_MS = 10_000;

/** Too much at once waits; nothing is lost. */
export const limits: Step = {
  title: `Somebody sends Bob ${BURST + 1} at once; his limit is ${BURST} in ten seconds`,
  async show({ story, backend, phone }) {
    const stream = watch((await phone("bob"))(StreamService), {});
    try {
      await stream.until("caughtUp");
      // Limits count in windows of the clock: what falls on the border of two is in neither too much.
      const intoWindow = Date.now() % WINDOW_MS;
      if (intoWindow > WINDOW_MS - 1_000) await delay(WINDOW_MS - intoWindow);
      const results = await Promise.all(
        Array.from({ length: BURST + 1 }, async (_, i) => {
          const { results } = await backend(SendService).send({
            to: { userIds: ["bob"] },
            content: { title: `News ${i + 1}` },
            waitForDecision: { seconds: 5n },
          });
          return results[0];
        }),
      );
      const delivered = results.filter((result) => result?.status === Status.DELIVERED).length;
      const [held] = results.filter((result) => result?.status === Status.HELD);
      must(delivered === BURST && held !== undefined, `${delivered} were delivered at once`);
      const limit = held.rateLimit;
      must(limit?.window === Reason.USER_BURST_LIMIT, `held by ${limit?.window}`);
      story.saw(
        `${delivered} arrive, one is held: ${ReasonSchema.value[limit.window]?.localName}, ${limit.usage} of ${limit.limit} used`,
      );
      const until = held.estimatedDeliveryTime ? timestampDate(held.estimatedDeliveryTime).getTime() - Date.now() : 0;
      must(until > 0 && until <= 11_000, `it is to wait for ${Math.round(until)} ms`);
      story.saw(`its answer says so, and that it will wait ${(until / 1000).toFixed(1)} s`);
      const heldAt = performance.now();
      const late = await stream.until(
        "notification",
        ({ entry }) => entry?.notificationId === held.notificationId,
        30_000,
      );
      story.saw("nothing is lost: when the window allows, it arrives", late.at - heldAt);
    } finally {
      stream.cut();
    }
  },
};
