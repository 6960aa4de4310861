import { Code, ConnectError } from "@connectrpc/connect";
import { ErrorInfoSchema } from "#gen/google/rpc/error_details_pb.ts";
import { InboxService } from "#gen/posthorn/v1/inbox_service_pb.ts";
import { SendService } from "#gen/posthorn/v1/send_service_pb.ts";
import { type Step, timed } from "../scene.ts";
import { must } from "../story.ts";

/** The same thing twice: on purpose, by mistake, and by a retry. */
export const repeats: Step = {
  title: "The same thing twice: a retry, a mistake and a duplicate",
  async show({ story, backend }) {
    const sender = backend(SendService);
    const request = {
      to: { userIds: ["mary"] },
      content: { title: "Your report is ready" },
      idempotencyKey: "report-2026-11",
      dedupKey: "report",
      waitForDecision: { seconds: 5n },
    };
    const first = (await sender.send(request)).results[0];
    const callers = 16;
    const [answers, ms] = await timed(() => Promise.all(Array.from({ length: callers }, () => sender.send(request))));
    must(
      answers.every(({ results }) => results[0]?.notificationId === first?.notificationId),
      "a repeat made another notification",
    );
    story.saw(`${callers} retries with its idempotency key: ${callers} times the first answer`, ms);

    const refusal = await sender
      .send({ ...request, content: { title: "Something else" } })
      .then(() => undefined, ConnectError.from);
    must(refusal?.code === Code.AlreadyExists, "the key was accepted for another request");
    const reason = refusal.findDetails(ErrorInfoSchema)[0]?.reason;
    must(reason === "IDEMPOTENCY_KEY_REUSED", `refused as ${reason}`);
    story.saw(`the same key with other content is refused: ${reason}`);

    const [again, dedupMs] = await timed(() => sender.send({ ...request, idempotencyKey: "report-2026-11-again" }));
    const duplicate = again.results[0];
    must(
      duplicate?.deduplicated === true && duplicate.notificationId === first?.notificationId,
      "the duplicate was not recognised",
    );
    story.saw("a new request with the same dedup key is deduplicated: it names the first", dedupMs);

    const { counts } = await backend(InboxService).getCounts({ userId: "mary" });
    must(counts?.total === 1, `Mary has ${counts?.total} notifications, not 1`);
    story.saw("Mary has one notification");
  },
};
