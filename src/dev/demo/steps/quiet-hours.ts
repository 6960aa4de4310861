import { timestampDate } from "@bufbuild/protobuf/wkt";
import { Priority, Reason, Status } from "#gen/posthorn/v1/notification_pb.ts";
import { PreferencesService } from "#gen/posthorn/v1/preferences_service_pb.ts";
import { SendService } from "#gen/posthorn/v1/send_service_pb.ts";
import { StreamService } from "#gen/posthorn/v1/stream_service_pb.ts";
import type { Step } from "../scene.ts";
import { must } from "../story.ts";
import { watch } from "../watch.ts";

/** A user who wants to sleep, what may wake her, and what happens when she gets up. */
export const quietHours: Step = {
  title: "Grace has quiet hours: what is not critical waits for her",
  async show({ story, backend, phone, remember }) {
    const grace = await phone("grace");
    const preferences = grace(PreferencesService);
    const stream = watch(grace(StreamService), { includeStatus: true });
    try {
      await stream.until("caughtUp");
      // She has no time zone of her own, so hours are those of UTC.
      const quiet = { enabled: true, startTime: hoursFromNow(-1), endTime: hoursFromNow(7) };
      await preferences.updatePreferences({ preferences: { quietHours: quiet } });
      const told = await stream.until("preferences");
      must(told.value.changedFields.includes("quiet_hours.enabled"), "her devices were told of other fields");
      story.saw(`her phone sets them from ${quiet.startTime} to ${quiet.endTime}; all her devices are told`);

      const send = async (title: string, priority: Priority) => {
        const { results } = await backend(SendService).send({
          to: { userIds: ["grace"] },
          type: "TASK_ASSIGNED",
          content: { title },
          priority,
          waitForDecision: { seconds: 5n },
        });
        return results[0];
      };
      const held = await send("Please review my change", Priority.NORMAL);
      must(
        held?.status === Status.HELD && held.verdicts[0]?.reason === Reason.QUIET_HOURS,
        `it was not held by quiet hours: status ${held?.status}, reason ${held?.verdicts[0]?.reason}`,
      );
      const until = held.estimatedDeliveryTime ? timestampDate(held.estimatedDeliveryTime).toISOString() : "?";
      story.saw(`"Please review my change" is held: QUIET_HOURS, until ${until.slice(0, 16)}Z`);
      remember("held", held.notificationId);

      const urgentAt = performance.now();
      const urgent = await send("The server room is on fire", Priority.CRITICAL);
      must(urgent?.status === Status.DELIVERED, `the critical one has status ${urgent?.status}`);
      const alarm = await stream.until("notification", ({ entry }) => entry?.notificationId === urgent.notificationId);
      story.saw("a CRITICAL one passes", alarm.at - urgentAt);

      const releasedAt = performance.now();
      const { reconciled } = await preferences.updatePreferences({
        preferences: { quietHours: { enabled: false } },
        updateMask: { paths: ["quiet_hours.enabled"] },
      });
      must(reconciled?.released === 1, "the answer does not say that the held one was released");
      const released = await stream.until("notification", ({ entry }) => entry?.notificationId === held.notificationId);
      story.saw("she switches them off, is told that one was released, and it arrives", released.at - releasedAt);
    } finally {
      stream.cut();
    }
  },
};

/** HH:MM, in UTC. */
function hoursFromNow(hours: number): string {
  return new Date(Date.now() + hours * 3_600_000).toISOString().slice(11, 16);
}
