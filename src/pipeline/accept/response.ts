import { create } from "@bufbuild/protobuf";
import { timestampFromDate } from "@bufbuild/protobuf/wkt";
import { Status } from "#gen/posthorn/v1/notification_pb.ts";
import { type SendResponse, SendResponseSchema, SendResultSchema } from "#gen/posthorn/v1/send_service_pb.ts";
import { firstStatus } from "./prepare.ts";
import type { NewRow, Submission } from "./submission.ts";

/** What a Send is answered, and every repeat of its idempotency key. */
export function acceptedResponse(
  submission: Submission,
  /** Rows for which an earlier notification stands, with its id. */
  original: ReadonlyMap<NewRow, string>,
  now: Date,
): SendResponse {
  const results = submission.rows.map((row) => {
    const earlier = original.get(row);
    return create(SendResultSchema, {
      notificationId: earlier ?? row.id,
      userId: row.userId,
      status: earlier === undefined ? firstStatus(row.scheduledAt) : Status.ACCEPTED,
      deduplicated: earlier !== undefined,
      queued: true,
      estimatedDeliveryTime: timestampFromDate(row.scheduledAt ?? now),
    });
  });
  return create(SendResponseSchema, { results, fanoutId: submission.fanout?.id ?? "" });
}
