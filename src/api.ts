import type { Service } from "#src/rpc/call.ts";
import { type AdminServiceDeps, adminService } from "#src/services/admin-service.ts";
import { type AnalyticsServiceDeps, analyticsService } from "#src/services/analytics-service.ts";
import { type BatchServiceDeps, batchService } from "#src/services/batch-service.ts";
import { type InboxServiceDeps, inboxService } from "#src/services/inbox-service.ts";
import { type PreferencesServiceDeps, preferencesService } from "#src/services/preferences-service.ts";
import { type ScheduleServiceDeps, scheduleService } from "#src/services/schedule-service.ts";
import { type SendServiceDeps, sendService } from "#src/services/send-service.ts";
import { type TopicServiceDeps, topicService } from "#src/services/topic-service.ts";
import { type TypeServiceDeps, typeService } from "#src/services/type-service.ts";
import { type UserServiceDeps, userService } from "#src/services/user-service.ts";

export type ApiDeps = SendServiceDeps &
  ScheduleServiceDeps &
  InboxServiceDeps &
  PreferencesServiceDeps &
  UserServiceDeps &
  TopicServiceDeps &
  TypeServiceDeps &
  BatchServiceDeps &
  AnalyticsServiceDeps &
  AdminServiceDeps;

/** What the role `api` serves: the whole contract but for the streams. */
export function apiServices(deps: ApiDeps): Service[] {
  return [
    sendService(deps),
    scheduleService(deps),
    inboxService(deps),
    preferencesService(deps),
    userService(deps),
    topicService(deps),
    typeService(deps),
    batchService(deps),
    analyticsService(deps),
    adminService(deps),
  ];
}
