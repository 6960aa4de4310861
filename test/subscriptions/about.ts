import { create, type JsonObject, toBinary } from "@bufbuild/protobuf";
import { ContentSchema } from "#gen/posthorn/v1/notification_pb.ts";
import type { Filtered } from "#src/subscriptions/evaluate.ts";

/** A notification that a filter is asked about. */
export function about(data: JsonObject | undefined, more: Partial<Filtered> = {}): Filtered {
  const content = toBinary(
    ContentSchema,
    create(ContentSchema, { title: "t", ...(data === undefined ? {} : { data }) }),
  );
  return { type: "job_match", category: "jobs", priority: 3, tags: ["remote", "topic:berlin"], content, ...more };
}
