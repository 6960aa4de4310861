import { Fanout_State, SendService } from "#gen/posthorn/v1/send_service_pb.ts";
import { StreamService } from "#gen/posthorn/v1/stream_service_pb.ts";
import { TopicService } from "#gen/posthorn/v1/topic_service_pb.ts";
import { eventually, type Step, timed } from "../scene.ts";
import { must } from "../story.ts";
import { watch } from "../watch.ts";

const MEMBERS = 1_000;

/** One Send to a group. */
export const topic: Step = {
  title: `One Send to the topic "apollo" with ${MEMBERS.toLocaleString("en")} members`,
  async show({ story, backend, browser }) {
    const topics = backend(TopicService);
    await topics.upsertTopic({ topic: { key: "apollo", description: "Everybody on the Apollo project" } });
    const userIds = ["margaret", ...Array.from({ length: MEMBERS - 1 }, (_, i) => `member-${i}`)];
    const { added } = await topics.addMembers({ key: "apollo", userIds });
    must(added === MEMBERS, `${added} members were added`);
    const stream = watch((await browser("margaret"))(StreamService), { filter: { topics: ["apollo"] } });
    try {
      await stream.until("caughtUp");
      const sentAt = performance.now();
      const [{ fanoutId }, ms] = await timed(() =>
        backend(SendService).send({
          to: { topics: ["apollo"] },
          type: "PROJECT_MILESTONE",
          content: { title: "The Eagle has landed" },
        }),
      );
      story.saw("Send answers at once; a resumable job creates the notifications", ms);
      const arrived = await stream.until("notification", ({ entry }) => entry?.tags.includes("topic:apollo") ?? false);
      story.saw("a member who filters for the topic has it", arrived.at - sentAt);
      const done = await eventually(
        async () => (await backend(SendService).getFanout({ id: fanoutId })).fanout,
        (fanout) => fanout?.state === Fanout_State.COMPLETED,
      );
      must(done?.created === BigInt(MEMBERS), `${done?.created} of ${MEMBERS} were created`);
      story.saw(`all ${MEMBERS.toLocaleString("en")} created`, performance.now() - sentAt);
    } finally {
      stream.cut();
    }
  },
};
