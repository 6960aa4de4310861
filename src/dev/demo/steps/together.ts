import { timestampDate } from "@bufbuild/protobuf/wkt";
import { BatchService, BatchState } from "#gen/posthorn/v1/batch_service_pb.ts";
import type { InboxEntry } from "#gen/posthorn/v1/inbox_service_pb.ts";
import { Status } from "#gen/posthorn/v1/notification_pb.ts";
import { Digest_Mode, PreferencesService } from "#gen/posthorn/v1/preferences_service_pb.ts";
import { SendService } from "#gen/posthorn/v1/send_service_pb.ts";
import { StreamService } from "#gen/posthorn/v1/stream_service_pb.ts";
import { eventually, type Step } from "../scene.ts";
import { must } from "../story.ts";
import { watch } from "../watch.ts";

const MINUTE_MS = 60_000;
/** To send what shall be in the digest, and for it to come. */
const MARGIN_MS = 5000;

/** What is alike comes as one; what can wait comes at a set time. */
export const together: Step = {
  title: "Mary's habits come as one, and the rest of her day in a digest",
  async show({ story, backend, phone }) {
    const mary = await phone("mary");
    const stream = watch(mary(StreamService), { includeStatus: true });
    const send = async (type: string, title: string) => {
      const { results } = await backend(SendService).send({
        to: { userIds: ["mary"] },
        type,
        content: { title },
        waitForDecision: { seconds: 5n },
      });
      const [result] = results;
      must(result?.status === Status.BATCHED, `"${title}" has status ${result?.status}`);
      return result as NonNullable<typeof result>;
    };
    try {
      await stream.until("caughtUp");
      await mary(PreferencesService).updatePreferences({ preferences: { batching: { maxSize: 3 } } });
      const habits = [];
      for (const title of ["Drink water", "Stretch", "Read"]) habits.push(await send("HABIT_REMINDER", title));
      const [first] = habits;
      must(new Set(habits.map(({ batchId }) => batchId)).size === 1, "they are in different batches");
      const one = await stream.until("notification");
      const title = one.value.entry?.content?.title;
      must(title === "3 Habit Reminders", `it says "${title}"`);
      const { batch } = await eventually(
        () => backend(BatchService).getBatch({ id: first?.batchId ?? "" }),
        (answer) => answer.batch?.delivered === 3,
      );
      must(batch?.state === BatchState.CLOSED && batch.delivered === 3, `the batch is in state ${batch?.state}`);
      story.saw(`three habits are batched and arrive as "${title}"; all three count as delivered`);

      // She has no time zone of her own, so this is a time of UTC.
      const due = new Date(Math.ceil((Date.now() + MARGIN_MS) / MINUTE_MS) * MINUTE_MS);
      const time = due.toISOString().slice(11, 16);
      await mary(PreferencesService).updatePreferences({ preferences: { digest: { mode: Digest_Mode.DAILY, time } } });
      const task = await send("TASK_ASSIGNED", "Review the plan");
      await send("PROJECT_MILESTONE", "Version 2 is out");
      const told = task.estimatedDeliveryTime ? timestampDate(task.estimatedDeliveryTime).getTime() : 0;
      must(told === due.getTime(), `the digest is due at ${new Date(told).toISOString()}`);
      story.saw(`she asks for a daily digest at ${time}: two more wait for it, whatever their type`);
      const isDigest = ({ entry }: { entry?: InboxEntry | undefined }) => entry?.type === "digest";
      const digest = await stream.until("notification", isDigest, MINUTE_MS + 2 * MARGIN_MS);
      const content = digest.value.entry?.content;
      must(content?.title === "2 notifications", `it says "${content?.title}"`);
      story.saw(`at ${time} it comes, by category: ${content?.body.replaceAll(/\n+/g, " ")}`);
    } finally {
      stream.cut();
    }
  },
};
