import { durationMs } from "@bufbuild/protobuf/wkt";
import { Reason, ReasonSchema, Status } from "#gen/posthorn/v1/notification_pb.ts";
import { SendService } from "#gen/posthorn/v1/send_service_pb.ts";
import { StreamService } from "#gen/posthorn/v1/stream_service_pb.ts";
import type { Step } from "../scene.ts";
import { must } from "../story.ts";
import { watch } from "../watch.ts";

/** Development's burst limit of one user (POSTHORN_USER_BURST). */
const BURST = 5;

/** Too much at once waits; nothing is lost. */
export const limits: Step = {
  title: `Somebody sends Bob ${BURST + 1} at once; his limit is ${BURST} in ten seconds`,
  async show({ story, backend, phone }) {
    const stream = watch((await phone("bob"))(StreamService), {});
    try {
      await stream.until("caughtUp");
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
      const retry = limit.retryAfter ? durationMs(limit.retryAfter) : 0;
      const heldAt = performance.now();
      const late = await stream.until(
        "notification",
        ({ entry }) => entry?.notificationId === held.notificationId,
        30_000,
      );
      story.saw(
        `nothing is lost: it arrives when the window allows (foretold: ${(retry / 1000).toFixed(1)} s)`,
        late.at - heldAt,
      );
    } finally {
      stream.cut();
    }
  },
};
