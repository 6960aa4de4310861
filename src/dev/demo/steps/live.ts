import { InboxService } from "#gen/posthorn/v1/inbox_service_pb.ts";
import { Priority, Status, VerdictKind } from "#gen/posthorn/v1/notification_pb.ts";
import { SendService } from "#gen/posthorn/v1/send_service_pb.ts";
import { InboxChanged_Change, StreamService } from "#gen/posthorn/v1/stream_service_pb.ts";
import { type Step, timed } from "../scene.ts";
import { must } from "../story.ts";
import { watch } from "../watch.ts";

/** One notification on its way, and what reading it on one device does on the other. */
export const live: Step = {
  title: "Ada has a phone (gRPC) and a browser (Connect over HTTP/1.1); one Send reaches both",
  async show({ story, backend, phone, browser }) {
    const [onPhone, onBrowser] = await Promise.all([phone("ada"), browser("ada")]);
    const began = performance.now();
    const mobile = watch(onPhone(StreamService), { deviceId: "phone" });
    const web = watch(onBrowser(StreamService), { deviceId: "browser" });
    try {
      story.saw("the phone's stream says hello and is caught up", (await mobile.until("caughtUp")).at - began);
      story.saw("so does the browser's", (await web.until("caughtUp")).at - began);

      const sentAt = performance.now();
      const [sent, ms] = await timed(() =>
        backend(SendService).send({
          to: { userIds: ["ada"] },
          type: "TASK_ASSIGNED",
          content: {
            title: "Grace gave you a task",
            body: "Write the release notes",
            url: "/tasks/42",
            data: { task: 42 },
          },
          priority: Priority.HIGH,
          waitForDecision: { seconds: 5n },
        }),
      );
      const result = sent.results[0];
      must(result?.status === Status.DELIVERED, `Send answered with status ${result?.status}, not DELIVERED`);
      const verdict = result.verdicts[0];
      must(verdict?.kind === VerdictKind.DELIVER, "no gate should have objected");
      const id = result.notificationId;
      const [first, second] = await Promise.all(
        [mobile, web].map((device) => device.until("notification", ({ entry }) => entry?.notificationId === id)),
      );
      story.saw(
        `on the phone: #${first?.value.entry?.sequence} "${first?.value.entry?.content?.title}"`,
        (first?.at ?? 0) - sentAt,
      );
      story.saw(`in the browser, ${second?.value.counts?.unread} unread`, (second?.at ?? 0) - sentAt);
      story.saw("Send answers: accepted, committed, decided and delivered", ms);

      const inbox = onPhone(InboxService);
      const [page, listMs] = await timed(() => inbox.listEntries({}));
      must(page.entries[0]?.notificationId === id, "the inbox does not list it first");
      story.saw(`the inbox has it: ${page.counts?.unread} unread of ${page.counts?.total}`, listMs);

      const readAt = performance.now();
      await inbox.markRead({ notificationIds: [id] });
      const change = await web.until("inbox", ({ change }) => change === InboxChanged_Change.READ);
      must(change.value.counts?.unread === 0, `the browser was told ${change.value.counts?.unread} unread, not 0`);
      story.saw("read on the phone: the browser's badge falls to 0", change.at - readAt);
      const { notification } = await backend(SendService).getNotification({ id });
      must(notification?.status === Status.READ, "the sender does not see that it was read");
      story.saw("and the sender sees READ");
    } finally {
      mobile.cut();
      web.cut();
    }
  },
};
