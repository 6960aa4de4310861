import type { Service } from "#src/rpc/call.ts";
import { type AdminServiceDeps, adminService } from "./admin-service.ts";
import { type AnalyticsServiceDeps, analyticsService } from "./analytics-service.ts";
import { type BatchServiceDeps, batchService } from "./batch-service.ts";
import { type InboxServiceDeps, inboxService } from "./inbox-service.ts";
import { type PreferencesServiceDeps, preferencesService } from "./preferences-service.ts";
import { type ScheduleServiceDeps, scheduleService } from "./schedule-service.ts";
import { type SendServiceDeps, sendService } from "./send-service.ts";
import { type TopicServiceDeps, topicService } from "./topic-service.ts";
import { type TypeServiceDeps, typeService } from "./type-service.ts";
import { type UserServiceDeps, userService } from "./user-service.ts";

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
