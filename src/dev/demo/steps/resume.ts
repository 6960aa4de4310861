import { SendService } from "#gen/posthorn/v1/send_service_pb.ts";
import { StreamService } from "#gen/posthorn/v1/stream_service_pb.ts";
import type { Step } from "../scene.ts";
import { must } from "../story.ts";
import { watch } from "../watch.ts";

const MISSED = 3;

/** A tunnel. */
export const resume: Step = {
  title: `Linus drives through a tunnel: his stream is cut, ${MISSED} notifications are sent meanwhile`,
  async show({ story, backend, browser }) {
    const linus = (await browser("linus"))(StreamService);
    const send = (title: string) =>
      backend(SendService).send({ to: { userIds: ["linus"] }, content: { title }, waitForDecision: { seconds: 5n } });
    const before = watch(linus, { deviceId: "car" });
    await before.until("caughtUp");
    await send("Before the tunnel");
    await before.until("notification");
    before.cut();
    story.saw(`cut after #1, with the cursor ${before.cursor}`);

    for (let i = 1; i <= MISSED; i++) await send(`In the tunnel, ${i} of ${MISSED}`);
    const reopenedAt = performance.now();
    const after = watch(linus, { deviceId: "car", cursor: before.cursor });
    try {
      const caughtUp = await after.until("caughtUp");
      const replayed = after.events.flatMap((event) => (event.case === "notification" ? [event.value] : []));
      const sequences = replayed.map(({ entry }) => Number(entry?.sequence));
      must(
        sequences.join() === "2,3,4" && replayed.every((each) => each.replayed),
        `replayed #${sequences.join(", #")}`,
      );
      story.saw(`resumed: #${sequences.join(", #")} replayed in order, then caught up`, caughtUp.at - reopenedAt);

      const sentAt = performance.now();
      await send("After the tunnel");
      const live = await after.until("notification", ({ entry }) => entry?.sequence === 5n);
      must(!live.value.replayed, "the next one came as a replay");
      story.saw("and #5 comes live: nothing missed, nothing twice", live.at - sentAt);
    } finally {
      after.cut();
    }
  },
};
