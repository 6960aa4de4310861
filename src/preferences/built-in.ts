import { Channel, Priority } from "#gen/posthorn/v1/notification_pb.ts";
import { type ChannelPreferences, Digest_Mode } from "#gen/posthorn/v1/preferences_service_pb.ts";
import { DEFAULT_OFFSETS_MS } from "#src/deadlines/offsets.ts";

/** What holds where nobody has set anything. */
export const BUILT_IN = {
  enabled: true,
  channel: true,
  onlyFor: false,
  minimumPriority: Priority.LOW as Priority,
  quietHours: { enabled: false, startTime: "22:00", endTime: "08:00", allowCritical: true },
  weekendsEnabled: true,
  doNotDisturb: { enabled: false, allowCritical: true },
  emergencyContacts: { enabled: false },
  delivery: { method: Channel.IN_APP as Channel, confirmationRequired: false },
  grouping: { enabled: true, maxSize: 10, windowMs: 3_600_000 },
  timing: { intelligentTiming: true, learning: true, personalisedQuietHours: false },
  language: "en",
  timeZone: "UTC",
  batching: { enabled: true, maxSize: 5, windowMs: 30 * 60_000 },
  reminderOffsetsMs: DEFAULT_OFFSETS_MS,
  hourlyCap: { enabled: true, maxPerHour: 10 },
  /** 1 is Monday. */
  digest: { mode: Digest_Mode.IMMEDIATE as Digest_Mode, time: "09:00", days: [1] as readonly number[] },
} as const;

/** What a channel is for, where it is not for everything. */
export type OnlyFor = "smsEmergencyOnly" | "emailDigestOnly";

export type Switch = Exclude<keyof ChannelPreferences, `$${string}` | OnlyFor>;

/** Every channel with its switch, and the switch's path. A new channel of the contract does not compile without. */
export const CHANNELS: Record<Exclude<Channel, typeof Channel.UNSPECIFIED>, { field: Switch; path: string }> = {
  [Channel.IN_APP]: { field: "inApp", path: "channels.in_app" },
  [Channel.EMAIL]: { field: "email", path: "channels.email" },
  [Channel.SMS]: { field: "sms", path: "channels.sms" },
  [Channel.PUSH]: { field: "push", path: "channels.push" },
  [Channel.WEBHOOK]: { field: "webhook", path: "channels.webhook" },
  [Channel.CHAT]: { field: "chat", path: "channels.chat" },
};

/** Channels that may be for some things alone, by the field that says so. */
export const ONLY_FOR: Record<OnlyFor, { channel: Channel; path: string }> = {
  smsEmergencyOnly: { channel: Channel.SMS, path: "channels.sms_emergency_only" },
  emailDigestOnly: { channel: Channel.EMAIL, path: "channels.email_digest_only" },
};
