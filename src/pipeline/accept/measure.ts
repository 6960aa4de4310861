import { ErrorReason } from "#gen/posthorn/v1/error_pb.ts";
import type { SendResponse } from "#gen/posthorn/v1/send_service_pb.ts";
import { Fault } from "#src/errors.ts";
import type { Metrics } from "#src/telemetry/metrics.ts";
import { LANES, laneOf } from "../flow.ts";
import type { Stored } from "./commit.ts";
import type { Draft } from "./prepare.ts";
import type { Submission } from "./submission.ts";

/** Counts what one accept commit stored. `began` and `Submission.submittedAt` are of `performance.now()`. */
export function measureGroup(
  metrics: Metrics,
  group: readonly Submission[],
  stored: readonly Stored[],
  began: number,
): void {
  metrics.acceptGroupItems.observe(group.length);
  metrics.acceptGroupSeconds.observe((performance.now() - began) / 1000);
  metrics.acceptWaitSeconds.observe(Math.max(0, began - (group[0]?.submittedAt ?? began)) / 1000);
  const accepted = new Map<string, number>();
  let repeated = 0;
  let suppressed = 0;
  let deprecated = 0;
  stored.forEach((result, index) => {
    const submission = group[index];
    if (submission === undefined || result.kind === "refused") return;
    if (result.kind === "repeated") {
      repeated++;
      return;
    }
    const { priority, warnings } = submission.draft;
    if (warnings.length > 0) deprecated++;
    const lane = laneOf(priority).name;
    accepted.set(lane, (accepted.get(lane) ?? 0) + result.rows.length);
    suppressed += submission.rows.length - result.rows.length;
  });
  for (const { name: lane } of LANES) {
    const count = accepted.get(lane);
    if (count !== undefined) metrics.accepted.inc({ lane }, count);
  }
  if (repeated > 0) metrics.deduplicated.inc({ kind: "idempotency_key" }, repeated);
  if (suppressed > 0) metrics.deduplicated.inc({ kind: "dedup_key" }, suppressed);
  if (deprecated > 0) metrics.deprecatedSends.inc({ outcome: "accepted" }, deprecated);
}

/** Counts the Sends that came after the sunset of their types, and the repeats that were `answered` all the same. */
export function measureRefused(
  { deduplicated, deprecatedSends }: Metrics,
  drafts: readonly (Draft | Fault)[],
  answered: ReadonlyMap<number, SendResponse>,
): void {
  const isLate = (draft: Draft | Fault) => draft instanceof Fault && draft.reason === ErrorReason.TYPE_SUNSET;
  const late = drafts.filter((draft, index) => isLate(draft) && !answered.has(index)).length;
  if (late > 0) deprecatedSends.inc({ outcome: "refused" }, late);
  if (answered.size > 0) deduplicated.inc({ kind: "idempotency_key" }, answered.size);
}
