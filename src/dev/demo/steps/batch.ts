import { timestampFromDate } from "@bufbuild/protobuf/wkt";
import { AnalyticsService } from "#gen/posthorn/v1/analytics_service_pb.ts";
import { ErrorReason } from "#gen/posthorn/v1/error_pb.ts";
import { Status } from "#gen/posthorn/v1/notification_pb.ts";
import { SendService } from "#gen/posthorn/v1/send_service_pb.ts";
import { eventually, type Step, timed } from "../scene.ts";
import { must } from "../story.ts";

const ITEMS = 1_000;
const USERS = 500;

/** Many at once, one of them bad. */
export const batch: Step = {
  title: `A batch of ${ITEMS.toLocaleString("en")} to ${USERS} users, one item of it without a title`,
  async show({ story, backend, began }) {
    const delivered = async () => {
      const { counters } = await backend(AnalyticsService).queryCounters({
        startTime: timestampFromDate(began),
        types: ["PROJECT_MILESTONE"],
        statuses: [Status.DELIVERED],
      });
      return Number(counters[0]?.count ?? 0n);
    };
    const items = Array.from({ length: ITEMS }, (_, i) => ({
      to: { userIds: [`user-${i % USERS}`] },
      type: "PROJECT_MILESTONE",
      content: { title: i === 7 ? "" : `Milestone ${i} reached` },
    }));
    const startedAt = performance.now();
    const [{ results }, ms] = await timed(() => backend(SendService).sendBatch({ items }));
    const refused = results.flatMap(({ result }, i) => (result.case === "error" ? [{ i, error: result.value }] : []));
    must(results.length === ITEMS, `${results.length} results for ${ITEMS} items`);
    const [bad] = refused;
    must(
      refused.length === 1 && bad?.i === 7 && bad.error.reason === ErrorReason.INVALID_REQUEST,
      "not exactly the bad item was refused",
    );
    story.saw(`${ITEMS - 1} accepted and committed`, ms);
    const violation = bad.error.fieldViolations[0];
    story.saw(`item 7 refused by itself: ${violation?.field}: ${violation?.description}`);

    const arrived = await eventually(delivered, (count) => count >= ITEMS - 1);
    const total = performance.now() - startedAt;
    must(arrived === ITEMS - 1, `${arrived} of ${ITEMS - 1} were delivered`);
    story.saw(`${arrived} decided and in ${USERS} inboxes`, total);
  },
};
