import { timestampFromDate } from "@bufbuild/protobuf/wkt";
import { Status } from "#gen/posthorn/v1/notification_pb.ts";
import type { SendResponse, SendResult } from "#gen/posthorn/v1/send_service_pb.ts";
import { firstStatus } from "./prepare.ts";
import type { NewRow, Submission } from "./submission.ts";

/** What a Send is answered, and every repeat of its idempotency key. Literals: `create` costs several times as much. */
export function acceptedResponse(
  submission: Submission,
  /** Rows for which an earlier notification stands, with its id. */
  original: ReadonlyMap<NewRow, string>,
  now: Date,
): SendResponse {
  const results = submission.rows.map((row): SendResult => {
    const earlier = original.get(row);
    return {
      $typeName: "posthorn.v1.SendResult",
      notificationId: earlier ?? row.id,
      userId: row.userId,
      status: earlier === undefined ? firstStatus(row.scheduledAt) : Status.ACCEPTED,
      deduplicated: earlier !== undefined,
      queued: true,
      verdicts: [],
      batchId: "",
      estimatedDeliveryTime: timestampFromDate(row.scheduledAt ?? now),
    };
  });
  const { fanout, draft } = submission;
  return { $typeName: "posthorn.v1.SendResponse", results, fanoutId: fanout?.id ?? "", warnings: draft.warnings };
}
