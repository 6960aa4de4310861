import { create } from "@bufbuild/protobuf";
import { timestampFromDate } from "@bufbuild/protobuf/wkt";
import { AnalyticsService, QueryCountersRequestSchema } from "#gen/posthorn/v1/analytics_service_pb.ts";
import { ConfirmEntryRequestSchema, InboxService } from "#gen/posthorn/v1/inbox_service_pb.ts";
import { PreferencesService, UpdatePreferencesRequestSchema } from "#gen/posthorn/v1/preferences_service_pb.ts";
import { ScheduleService, UpsertDeadlineRequestSchema } from "#gen/posthorn/v1/schedule_service_pb.ts";
import {
  ConfirmNotificationRequestSchema,
  ListNotificationsRequestSchema,
  SendBatchRequestSchema,
  SendRequestSchema,
  SendService,
  UpdateNotificationRequestSchema,
} from "#gen/posthorn/v1/send_service_pb.ts";
import { CreateTypeRequestSchema, PushPayloadRequestSchema, TypeService } from "#gen/posthorn/v1/type_service_pb.ts";
import { shipped } from "../support/descriptors.ts";
import { type Row, row } from "./conversation.ts";
import type { World } from "./world.ts";

const MANY = Array.from({ length: 1000 }, (_, n) => `user-${n}`);

/** What only some methods are asked and refused. Comes after what is refused of all, and changes nothing. */
export function special({ as: { key, sendKey, user }, fill, ids }: World): Row[] {
  const { send, sendBatch, updateNotification, listNotifications, confirmNotification } = SendService.method;
  const { createType } = TypeService.method;
  const to = { userIds: ["alice"] };
  const content = { title: "Hello", body: "Là-bas ☃" };
  const sending = (more: object) => create(SendRequestSchema, { to, type: "vault", content, ...more });
  const changing = (more: object) => create(UpdateNotificationRequestSchema, { content, ...more });
  return [
    row(send, "a key used for another request", sending({ idempotencyKey: "taken", type: "general" }), key),
    row(
      send,
      "a key used for the same request",
      sending({ idempotencyKey: "taken", waitForDecision: { seconds: 10n } }),
      key,
    ),
    row(send, "the same again within the window", sending({ dedupKey: "taken" }), key),
    row(send, "a limit passed without the scope", sending({ bypassRateLimit: true }), sendKey),
    row(
      sendBatch,
      "good, bad and worse",
      create(SendBatchRequestSchema, {
        items: [
          sending({ content: { title: "" } }),
          sending({
            to: { userIds: ["né"] },
            priority: 99,
            content: { title: "t", actions: [{ id: "ok" }, { id: "n o" }] },
          }),
          sending({ type: "nothing" }),
        ],
      }),
      key,
    ),
    row(
      sendBatch,
      "more users than one call may name",
      create(SendBatchRequestSchema, { items: Array.from({ length: 11 }, () => sending({ to: { userIds: MANY } })) }),
      key,
    ),
    row(
      confirmNotification,
      "one that has not come yet",
      create(ConfirmNotificationRequestSchema, { id: ids.Notification ?? "", reason: "heard so" }),
      key,
    ),
    row(
      InboxService.method.confirmEntry,
      "one that has not come yet",
      create(ConfirmEntryRequestSchema, { notificationId: ids.Notification ?? "" }),
      user,
    ),
    row(
      ScheduleService.method.upsertDeadline,
      "one more than a user may have",
      create(UpsertDeadlineRequestSchema, {
        deadline: {
          userId: "alice",
          key: "more",
          time: timestampFromDate(new Date(Date.now() + 24 * 3_600_000)),
          content,
        },
      }),
      key,
    ),
    row(
      updateNotification,
      "a mask that names no field",
      changing({ id: ids.Notification, updateMask: { paths: ["nope"] } }),
      key,
    ),
    row(updateNotification, "one that is delivered", changing({ id: String(fill.notification_id) }), key),
    row(listNotifications, "a page token of nobody's", create(ListNotificationsRequestSchema, { pageToken: "☃" }), key),
    row(
      createType,
      "one that is there",
      create(CreateTypeRequestSchema, { type: { key: "vault", displayName: "x", category: "vault" } }),
      key,
    ),
    row(
      TypeService.method.pushPayload,
      "what breaks what is there",
      create(PushPayloadRequestSchema, {
        type: "typed",
        descriptorSet: shipped("bytes order = 1;"),
        message: "acme.Shipped",
      }),
      key,
    ),
    row(
      PreferencesService.method.updatePreferences,
      "an etag that is old",
      create(UpdatePreferencesRequestSchema, {
        userId: "alice",
        preferences: { language: "de" },
        etag: "old",
        reason: "why",
      }),
      key,
    ),
    row(
      AnalyticsService.method.queryCounters,
      "a longer time than there are counters of",
      create(QueryCountersRequestSchema, { startTime: timestampFromDate(new Date(0)) }),
      key,
    ),
  ];
}
