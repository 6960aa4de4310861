import { Scope } from "#gen/posthorn/v1/admin_service_pb.ts";
import type { Service } from "./call.ts";

/**
 * What the operator may do with a method: `platform`, it concerns no one tenant; `tenant`, only with the tenant named
 * in the header `posthorn-tenant`; `either`, with or without; undefined, nothing.
 */
export type OperatorAccess = "platform" | "tenant" | "either" | undefined;

/** Who may call a method. What is not granted here is refused. */
export type AccessRule = {
  readonly operator?: OperatorAccess;
  /** API keys may call it if they have this scope; `any`: all keys. Absent: none may. */
  readonly key?: Scope | "any";
  /**
   * User tokens may call it: for themselves, named by this field (proto name; a string, or a list of which every item
   * must be the caller); `any`: it concerns nobody in particular. Absent: none may.
   */
  readonly user?: { readonly field: string } | "any";
  /** Fields an API key has to fill (proto names), because nothing else says whom or why. */
  readonly keyMustSet?: readonly string[];
  /** A field naming a tenant: empty, or the caller's own, unless the operator calls. */
  readonly ownTenantField?: string;
  /** A field (of a oneof too) that only the operator may set; with it the operator needs no tenant. */
  readonly operatorOnlyField?: string;
};

const platform: AccessRule = { operator: "platform" };
const admin: AccessRule = { operator: "tenant", key: Scope.ADMIN };
const inbox: AccessRule = { key: Scope.INBOX, user: { field: "user_id" }, keyMustSet: ["user_id"] };
const send: AccessRule = { key: Scope.SEND };
const readNotifications: AccessRule = { key: Scope.NOTIFICATIONS_READ };
const stream: AccessRule = { key: Scope.STREAM, user: { field: "user_id" }, keyMustSet: ["user_id"] };
const readPreferences: AccessRule = {
  key: Scope.PREFERENCES_READ,
  user: { field: "user_id" },
  keyMustSet: ["user_id"],
};
const writePreferences: AccessRule = {
  key: Scope.PREFERENCES_WRITE,
  user: { field: "user_id" },
  keyMustSet: ["user_id", "reason"],
};
const users: AccessRule = { key: Scope.USERS };
const readTypes: AccessRule = { key: Scope.TYPES_READ };
const writeTypes: AccessRule = { key: Scope.TYPES_WRITE };

/**
 * The one table of who may call what, by full method name. It says what the comments in the protos say. Three rules need
 * the database, each item of a batch or a second scope and are kept by handlers: a key cannot give scopes it lacks
 * (CreateApiKey), `bypass_rate_limit` needs its scope (Send, SendBatch, SendStream, PreviewSend), and so does telling what
 * a user wishes (PreviewSend).
 */
export const ACCESS_RULES = {
  "posthorn.v1.AdminService.CreateTenant": platform,
  "posthorn.v1.AdminService.GetTenant": { operator: "either", key: Scope.ADMIN, ownTenantField: "id" },
  "posthorn.v1.AdminService.ListTenants": platform,
  "posthorn.v1.AdminService.UpdateTenant": platform,
  "posthorn.v1.AdminService.CreateApiKey": admin,
  "posthorn.v1.AdminService.ListApiKeys": admin,
  "posthorn.v1.AdminService.RotateApiKey": admin,
  "posthorn.v1.AdminService.RevokeApiKey": admin,
  "posthorn.v1.AdminService.CreateTokenIssuer": admin,
  "posthorn.v1.AdminService.ListTokenIssuers": admin,
  "posthorn.v1.AdminService.DeleteTokenIssuer": admin,
  "posthorn.v1.AdminService.CreateUserToken": admin,
  "posthorn.v1.AdminService.RevokeUserTokens": admin,
  "posthorn.v1.AdminService.WhoAmI": { operator: "either", key: "any", user: "any" },
  "posthorn.v1.AdminService.ListAuditEntries": admin,

  "posthorn.v1.SendService.Send": send,
  "posthorn.v1.SendService.SendBatch": send,
  "posthorn.v1.SendService.SendStream": send,
  "posthorn.v1.SendService.GetNotification": readNotifications,
  "posthorn.v1.SendService.ExplainNotification": readNotifications,
  "posthorn.v1.SendService.PreviewSend": readNotifications,
  "posthorn.v1.SendService.ListNotifications": readNotifications,
  "posthorn.v1.SendService.UpdateNotification": send,
  "posthorn.v1.SendService.CancelNotification": send,
  "posthorn.v1.SendService.CancelNotifications": send,
  "posthorn.v1.SendService.ConfirmNotification": send,
  "posthorn.v1.SendService.CancelEscalation": send,
  "posthorn.v1.SendService.GetFanout": readNotifications,
  "posthorn.v1.SendService.CancelFanout": send,

  "posthorn.v1.ScheduleService.CreateSchedule": send,
  "posthorn.v1.ScheduleService.GetSchedule": readNotifications,
  "posthorn.v1.ScheduleService.ListSchedules": readNotifications,
  "posthorn.v1.ScheduleService.UpdateSchedule": send,
  "posthorn.v1.ScheduleService.PauseSchedule": send,
  "posthorn.v1.ScheduleService.ResumeSchedule": send,
  "posthorn.v1.ScheduleService.DeleteSchedule": send,
  "posthorn.v1.ScheduleService.UpsertDeadline": send,
  "posthorn.v1.ScheduleService.GetDeadline": readNotifications,
  "posthorn.v1.ScheduleService.ListDeadlines": readNotifications,
  "posthorn.v1.ScheduleService.DeleteDeadline": send,

  "posthorn.v1.InboxService.ListEntries": inbox,
  "posthorn.v1.InboxService.GetEntry": inbox,
  "posthorn.v1.InboxService.GetCounts": inbox,
  "posthorn.v1.InboxService.MarkRead": inbox,
  "posthorn.v1.InboxService.MarkUnread": inbox,
  "posthorn.v1.InboxService.MarkSeen": inbox,
  "posthorn.v1.InboxService.MarkAllRead": inbox,
  "posthorn.v1.InboxService.Archive": inbox,
  "posthorn.v1.InboxService.Unarchive": inbox,
  "posthorn.v1.InboxService.Snooze": inbox,
  "posthorn.v1.InboxService.Unsnooze": inbox,
  "posthorn.v1.InboxService.DeleteEntries": inbox,
  "posthorn.v1.InboxService.Clear": inbox,
  "posthorn.v1.InboxService.ConfirmEntry": { user: { field: "user_id" } },

  "posthorn.v1.StreamService.Subscribe": stream,
  "posthorn.v1.StreamService.Ack": stream,
  "posthorn.v1.StreamService.GetPresence": {
    key: Scope.STREAM,
    user: { field: "user_ids" },
    keyMustSet: ["user_ids"],
  },
  "posthorn.v1.StreamService.Broadcast": {
    operator: "tenant",
    key: Scope.BROADCAST,
    operatorOnlyField: "all_tenants",
  },

  "posthorn.v1.PreferencesService.GetPreferences": readPreferences,
  "posthorn.v1.PreferencesService.UpdatePreferences": writePreferences,
  "posthorn.v1.PreferencesService.ResetPreferences": writePreferences,
  "posthorn.v1.PreferencesService.GetEffectivePreferences": readPreferences,
  "posthorn.v1.PreferencesService.GetDefaultPreferences": { key: Scope.PREFERENCES_READ },
  "posthorn.v1.PreferencesService.UpdateDefaultPreferences": { key: Scope.ADMIN, keyMustSet: ["reason"] },
  "posthorn.v1.PreferencesService.CreateSubscription": writePreferences,
  "posthorn.v1.PreferencesService.GetSubscription": readPreferences,
  "posthorn.v1.PreferencesService.ListSubscriptions": readPreferences,
  "posthorn.v1.PreferencesService.UpdateSubscription": writePreferences,
  "posthorn.v1.PreferencesService.DeleteSubscription": writePreferences,
  "posthorn.v1.PreferencesService.UnsubscribeAll": writePreferences,
  "posthorn.v1.PreferencesService.GetLearntTiming": readPreferences,
  "posthorn.v1.PreferencesService.DeleteLearntTiming": writePreferences,

  "posthorn.v1.UserService.UpsertUser": users,
  "posthorn.v1.UserService.UpdateUser": users,
  "posthorn.v1.UserService.GetUser": { key: Scope.USERS, user: { field: "id" }, keyMustSet: ["id"] },
  "posthorn.v1.UserService.ListUsers": users,
  "posthorn.v1.UserService.DeleteUser": users,
  "posthorn.v1.UserService.ImportUsers": users,

  "posthorn.v1.TopicService.UpsertTopic": users,
  "posthorn.v1.TopicService.GetTopic": users,
  "posthorn.v1.TopicService.ListTopics": users,
  "posthorn.v1.TopicService.DeleteTopic": users,
  "posthorn.v1.TopicService.AddMembers": users,
  "posthorn.v1.TopicService.RemoveMembers": users,
  "posthorn.v1.TopicService.ListMembers": users,
  "posthorn.v1.TopicService.ListUserTopics": {
    key: Scope.USERS,
    user: { field: "user_id" },
    keyMustSet: ["user_id"],
  },

  "posthorn.v1.TypeService.CreateType": writeTypes,
  "posthorn.v1.TypeService.GetType": readTypes,
  "posthorn.v1.TypeService.ListTypes": readTypes,
  "posthorn.v1.TypeService.UpdateType": writeTypes,
  "posthorn.v1.TypeService.ListTypeRevisions": readTypes,
  "posthorn.v1.TypeService.DeleteType": writeTypes,
  "posthorn.v1.TypeService.LoadPreset": writeTypes,
  "posthorn.v1.TypeService.PushPayload": writeTypes,
  "posthorn.v1.TypeService.CheckPayload": readTypes,
  "posthorn.v1.TypeService.GetPayload": readTypes,
  "posthorn.v1.TypeService.ListPayloads": readTypes,

  "posthorn.v1.BatchService.GetBatch": readNotifications,
  "posthorn.v1.BatchService.ListBatches": readNotifications,
  "posthorn.v1.BatchService.CloseBatch": send,

  "posthorn.v1.AnalyticsService.QueryCounters": { key: Scope.ANALYTICS_READ },
} as const satisfies Record<string, AccessRule>;

/** The rules of some of the services, for a process that serves only these. */
export function rulesOf(services: readonly Service[]): Record<string, AccessRule> {
  const names = new Set(services.map(({ descriptor }) => descriptor.typeName));
  return Object.fromEntries(
    Object.entries(ACCESS_RULES).filter(([name]) => names.has(name.slice(0, name.lastIndexOf(".")))),
  );
}
