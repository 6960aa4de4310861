import { timestampDate, timestampFromDate } from "@bufbuild/protobuf/wkt";
import { AnalyticsService, Dimension } from "#gen/posthorn/v1/analytics_service_pb.ts";
import {
  ChannelSchema,
  type Notification,
  ReasonSchema,
  Status,
  StatusSchema,
} from "#gen/posthorn/v1/notification_pb.ts";
import { SendService } from "#gen/posthorn/v1/send_service_pb.ts";
import { eventually, type Scene, type Step } from "../scene.ts";
import { must } from "../story.ts";

/** What became of one notification, and of all. */
export const account: Step = {
  title: "Every notification is accounted for",
  async show(scene) {
    const { story, backend, recall } = scene;
    const id = recall("held");
    must(id !== undefined, "there is no held notification to look back at");
    const { notification, timeline } = await backend(SendService).getNotification({ id });
    story.say(`The timeline of "${notification?.content?.title}", ${id}:`);
    const first = timeline[0]?.time;
    story.table(
      timeline.map((entry) => [
        entry.time ? timestampDate(entry.time).toISOString().slice(11, 23) : "",
        entry.time && first ? `${timestampDate(entry.time).getTime() - timestampDate(first).getTime()} ms` : "",
        StatusSchema.value[entry.status]?.localName ?? "",
        entry.reason === 0 ? "" : (ReasonSchema.value[entry.reason]?.localName ?? ""),
        entry.channel === 0 ? "" : (ChannelSchema.value[entry.channel]?.localName ?? ""),
        `by ${entry.actor}`,
      ]),
    );
    const statuses = timeline.map((entry) => entry.status);
    must(
      statuses.indexOf(Status.ACCEPTED) === 0 &&
        statuses.includes(Status.HELD) &&
        statuses.lastIndexOf(Status.DELIVERED) > statuses.indexOf(Status.HELD),
      "it does not read ACCEPTED, HELD, DELIVERED",
    );

    const everything = await eventually(
      () => listAll(scene),
      (all) => all.every(({ status }) => settled(status)),
    );
    const open = everything.filter(({ status }) => !settled(status)).length;
    must(open === 0, `${open} of ${everything.length} are still open`);
    const { counters } = await backend(AnalyticsService).queryCounters({
      startTime: timestampFromDate(scene.began),
      groupBy: [Dimension.TYPE, Dimension.STATUS],
    });
    const types = [...new Set(counters.map((counter) => counter.type))].sort();
    const columns = [Status.ACCEPTED, Status.HELD, Status.DELIVERED, Status.READ, Status.CANCELLED];
    const count = (type: string, status: number) =>
      Number(counters.find((counter) => counter.type === type && counter.status === status)?.count ?? 0n);
    story.say("How many notifications ever reached each status, by type:");
    story.table([
      ["type", ...columns.map((status) => StatusSchema.value[status]?.localName ?? "")],
      ...types.map((type) => [type, ...columns.map((status) => count(type, status).toLocaleString("en"))]),
    ]);
    const accepted = types.reduce((sum, type) => sum + count(type, Status.ACCEPTED), 0);
    must(accepted === everything.length, `the counters say ${accepted}, a recount ${everything.length}`);
    story.saw(
      `the counters equal a recount: ${accepted.toLocaleString("en")} accepted, all of them delivered or cancelled`,
    );
  },
};

function settled(status: Status): boolean {
  return status === Status.DELIVERED || status === Status.READ || status === Status.CANCELLED;
}

async function listAll({ backend }: Scene): Promise<Notification[]> {
  const all: Notification[] = [];
  for (let pageToken = ""; ; ) {
    const page = await backend(SendService).listNotifications({ pageSize: 200, pageToken });
    all.push(...page.notifications);
    pageToken = page.nextPageToken;
    if (pageToken === "") return all;
  }
}
