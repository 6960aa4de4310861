import { timestampDate, timestampFromMs } from "@bufbuild/protobuf/wkt";
import { PreferencesService } from "#gen/posthorn/v1/preferences_service_pb.ts";
import { ScheduleService } from "#gen/posthorn/v1/schedule_service_pb.ts";
import { StreamService } from "#gen/posthorn/v1/stream_service_pb.ts";
import type { Step } from "../scene.ts";
import { must } from "../story.ts";
import { watch } from "../watch.ts";

const HOUR_MS = 3_600_000;

/** What is sent by itself: a reminder that moves with its deadline, and a schedule. */
export const reminder: Step = {
  title: "Katherine is reminded of a deadline, and every morning of her stand-up",
  async show({ story, backend, phone }) {
    const schedules = backend(ScheduleService);
    const katherine = await phone("katherine");
    const stream = watch(katherine(StreamService), {});
    try {
      await stream.until("caughtUp");
      // Deadlines are of a type that collects; she wants each by itself.
      await katherine(PreferencesService).updatePreferences({ preferences: { batching: { enabled: false } } });
      const task = {
        userId: "katherine",
        key: "trajectory",
        type: "TASK_DEADLINE",
        content: { title: "Check the trajectory" },
      };
      const { deadline: far } = await schedules.upsertDeadline({
        deadline: { ...task, time: timestampFromMs(Date.now() + 48 * HOUR_MS) },
      });
      must(far?.reminders.length === 2, `there are ${far?.reminders.length} reminders`);
      story.saw(`a deadline in two days: reminders ${far.reminders.map(({ time }) => shown(time)).join(" and ")}`);
      const soon = Date.now() + 2 * HOUR_MS + 1000;
      const { deadline: near } = await schedules.upsertDeadline({ deadline: { ...task, time: timestampFromMs(soon) } });
      const kept = near?.reminders[0]?.notificationId;
      must(kept === far.reminders[1]?.notificationId, "the reminder did not move with its deadline");
      const arrived = await stream.until("notification", ({ entry }) => entry?.notificationId === kept);
      must(
        arrived.value.entry?.tags.includes("deadline:trajectory") === true,
        "the reminder does not name its deadline",
      );
      story.saw("it is moved: one reminder is cancelled, the other comes now, two hours before");

      const localStartTime = new Date(Date.now() + 2000).toISOString().slice(0, 19);
      const { schedule } = await schedules.createSchedule({
        schedule: {
          key: "stand-up",
          request: { to: { userIds: ["katherine"] }, content: { title: "Stand-up" } },
          recurrence: "FREQ=DAILY;COUNT=3",
          localStartTime,
          timeZone: "UTC",
        },
      });
      must(schedule?.nextOccurrences.length === 3, `there are ${schedule?.nextOccurrences.length} occurrences`);
      story.saw(`a schedule for three days: ${schedule.nextOccurrences.map(({ localTime }) => localTime).join(", ")}`);
      await stream.until("notification", ({ entry }) => entry?.tags.includes("schedule:stand-up") ?? false);
      const { schedule: after } = await schedules.getSchedule({ key: "stand-up" });
      must(after?.firedCount === 1n, `it fired ${after?.firedCount} times`);
      story.saw(`the first one arrives; the next is ${after.nextOccurrences[0]?.localTime}`);
      await schedules.deleteSchedule({ key: "stand-up" });
    } finally {
      stream.cut();
    }
  },
};

function shown(time: Parameters<typeof timestampDate>[0] | undefined): string {
  return time === undefined ? "?" : `${timestampDate(time).toISOString().slice(0, 16)}Z`;
}
