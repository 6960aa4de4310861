import type { DescMethod } from "@bufbuild/protobuf";
import { AdminService } from "#gen/posthorn/v1/admin_service_pb.ts";
import { AnalyticsService } from "#gen/posthorn/v1/analytics_service_pb.ts";
import { BatchService } from "#gen/posthorn/v1/batch_service_pb.ts";
import { InboxService } from "#gen/posthorn/v1/inbox_service_pb.ts";
import { PreferencesService } from "#gen/posthorn/v1/preferences_service_pb.ts";
import { ScheduleService } from "#gen/posthorn/v1/schedule_service_pb.ts";
import { SendService } from "#gen/posthorn/v1/send_service_pb.ts";
import { StreamService } from "#gen/posthorn/v1/stream_service_pb.ts";
import { TopicService } from "#gen/posthorn/v1/topic_service_pb.ts";
import { TypeService } from "#gen/posthorn/v1/type_service_pb.ts";
import { UserService } from "#gen/posthorn/v1/user_service_pb.ts";

/** Every service of the contract, by the name its client has in tests. */
export const SERVICES = {
  admin: AdminService,
  analytics: AnalyticsService,
  batches: BatchService,
  inbox: InboxService,
  preferences: PreferencesService,
  schedules: ScheduleService,
  send: SendService,
  stream: StreamService,
  topics: TopicService,
  types: TypeService,
  users: UserService,
} as const;

/** Every method of the contract. */
export const METHODS: readonly DescMethod[] = Object.values(SERVICES).flatMap(({ methods }) => methods);
