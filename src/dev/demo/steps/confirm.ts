import { timestampDate } from "@bufbuild/protobuf/wkt";
import { InboxService } from "#gen/posthorn/v1/inbox_service_pb.ts";
import { Channel, Priority, Status } from "#gen/posthorn/v1/notification_pb.ts";
import { PreferencesService } from "#gen/posthorn/v1/preferences_service_pb.ts";
import { SendService } from "#gen/posthorn/v1/send_service_pb.ts";
import { StreamService } from "#gen/posthorn/v1/stream_service_pb.ts";
import { type Step, timed } from "../scene.ts";
import { must } from "../story.ts";
import { watch } from "../watch.ts";

/** Another channel, and an answer that is asked for. */
export const confirm: Step = {
  title: "Margaret gets what is critical by e-mail too, and has to confirm it",
  async show({ story, backend, phone }) {
    const margaret = await phone("margaret");
    const laptop = watch(margaret(StreamService), { includeStatus: true });
    try {
      await laptop.until("caughtUp");
      await margaret(PreferencesService).updatePreferences({
        preferences: { delivery: { method: Channel.EMAIL, fallbacks: [Channel.SMS], confirmationRequired: true } },
      });
      const sentAt = performance.now();
      const { results } = await backend(SendService).send({
        to: { userIds: ["margaret"] },
        content: { title: "1202 alarm" },
        priority: Priority.CRITICAL,
      });
      const id = results[0]?.notificationId ?? "";
      const arrived = await laptop.until("notification", ({ entry }) => entry?.notificationId === id);
      must(arrived.value.entry?.confirmationRequired === true, "nobody asks her to confirm it");
      const mailed = await laptop.until("status", ({ channel }) => channel === Channel.EMAIL);
      must(mailed.value.status === Status.DELIVERED, "the e-mail was not sent");
      story.saw("it is in her inbox, and in the folder that stands for e-mail here", mailed.at - sentAt);
      const [{ confirmTime }, ms] = await timed(() => margaret(InboxService).confirmEntry({ notificationId: id }));
      await laptop.until("status", (change) => change.confirmTime !== undefined);
      story.saw("she confirms it on her phone; her laptop hears of it", ms);
      const { timeline } = await backend(SendService).getNotification({ id });
      must(timeline.at(-1)?.status === Status.READ && timeline.some(({ confirmed }) => confirmed), "it is not told");
      const at = confirmTime === undefined ? "?" : timestampDate(confirmTime).toISOString();
      story.saw(`her sender sees when: ${at}; else she would have had an SMS after five minutes`);
    } finally {
      laptop.cut();
    }
  },
};
