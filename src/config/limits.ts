/** How often may be called, and how much a user or tenant gets. What is over a notification limit waits for its turn; no call is lost silently. */

import { choice, integer, milliseconds } from "./kinds.ts";
import { option, optional } from "./option.ts";

const perSecond = integer(0, 1_000_000);
const policy = choice("open-local", "closed");

export const apiLimits = {
  perKey: {
    requestsPerSecond: option("POSTHORN_API_KEY_REQUESTS_PER_SECOND", perSecond, {
      default: { development: 20_000, staging: 2_000, production: 2_000 },
      doc: "Calls per API key, 0 for no limit. Wide in development, so that a benchmark measures the program.",
    }),
    burst: option("POSTHORN_API_KEY_BURST", perSecond, {
      default: { development: 40_000, staging: 4_000, production: 4_000 },
      doc: "Calls a key may make at once after a pause: two seconds' worth.",
    }),
  },
  perTenant: {
    requestsPerSecond: option("POSTHORN_API_TENANT_REQUESTS_PER_SECOND", perSecond, {
      default: { development: 50_000, staging: 5_000, production: 5_000 },
      doc: "Calls of all keys and users of a tenant together, 0 for no limit.",
    }),
    burst: option("POSTHORN_API_TENANT_BURST", perSecond, {
      default: { development: 100_000, staging: 10_000, production: 10_000 },
      doc: "Calls a tenant may make at once after a pause: two seconds' worth.",
    }),
  },
};

const perWindow = integer(1, 1_000_000);
/** A recipient's places of a day are counted one by one. */
const perDay = integer(0, 10_000);

export const notificationLimits = {
  perUser: {
    perMinute: option("POSTHORN_USER_MAX_PER_MINUTE", perWindow, {
      aliases: ["NOTIFICATION_MAX_PER_MINUTE"],
      default: { development: 10, staging: 15, production: 20 },
      doc: "Notifications one user gets per minute; what is over waits.",
    }),
    perHour: option("POSTHORN_USER_MAX_PER_HOUR", perWindow, {
      aliases: ["NOTIFICATION_MAX_PER_HOUR"],
      default: { development: 100, staging: 150, production: 200 },
      doc: "The same per hour.",
    }),
    perDay: option("POSTHORN_USER_MAX_PER_DAY", perWindow, {
      aliases: ["NOTIFICATION_MAX_PER_DAY"],
      default: { development: 500, staging: 750, production: 1_000 },
      doc: "The same per day.",
    }),
    burst: option("POSTHORN_USER_BURST", perWindow, {
      aliases: ["NOTIFICATION_BURST_LIMIT"],
      default: { development: 5, staging: 8, production: 10 },
      doc: "Notifications one user gets within ten seconds.",
    }),
  },
  perChannelPerDay: {
    email: option("POSTHORN_EMAIL_MAX_PER_DAY", perDay, {
      default: 0,
      doc: "E-mails one user gets in a day of theirs, 0 for no limit but the tenant's and their own; what is over waits for a day with room.",
    }),
    sms: option("POSTHORN_SMS_MAX_PER_DAY", perDay, {
      default: { development: 20, staging: 20, production: 20 },
      doc: "The same for text messages: each costs money, and nobody reads more.",
    }),
    push: option("POSTHORN_PUSH_MAX_PER_DAY", perDay, { default: 0, doc: "The same for push." }),
    webhook: option("POSTHORN_WEBHOOK_MAX_PER_DAY", perDay, { default: 0, doc: "The same for webhooks." }),
    chat: option("POSTHORN_CHAT_MAX_PER_DAY", perDay, { default: 0, doc: "The same for chat." }),
  },
  perTenantPerMinute: option("POSTHORN_TENANT_MAX_PER_MINUTE", integer(0, 1_000_000_000), {
    default: { development: 0, staging: 600_000, production: 600_000 },
    doc: "Notifications of one tenant per minute, 0 for no limit; half of what one small deployment carries.",
  }),
  globalPerMinute: option("POSTHORN_GLOBAL_MAX_PER_MINUTE", integer(0, 1_000_000_000), {
    default: 0,
    doc: "Notifications of all tenants per minute, 0 for no limit: the queue already evens out the load.",
  }),
  backoffMultiplier: option("POSTHORN_LIMIT_BACKOFF_MULTIPLIER", integer(1, 10), {
    default: 2,
    doc: "While Redis is away and a limit's policy is `closed`: each time a notification is tried in vain, it waits up to this many times longer. What is over a limit does not wait longer each time: it is given its turn.",
  }),
  maxBackoffMs: option("POSTHORN_LIMIT_MAX_BACKOFF_MS", milliseconds(1_000, 86_400_000), {
    default: { development: 300_000, staging: 300_000, production: 600_000 },
    doc: "Longest such wait.",
  }),
  onRedisDown: option("POSTHORN_LIMITS_ON_REDIS_DOWN", policy, {
    default: "open-local",
    doc: "What happens to limits while Redis is away. `open-local`: each process counts by itself, so that several together may let through that many times more. `closed`: all notifications but CRITICAL ones and those sent past the limits are held until Redis is back.",
  }),
  onRedisDownOf: {
    user: optional("POSTHORN_LIMITS_ON_REDIS_DOWN_USER", policy, {
      doc: "The same for the limits of users alone. Unset: as POSTHORN_LIMITS_ON_REDIS_DOWN says.",
    }),
    tenant: optional("POSTHORN_LIMITS_ON_REDIS_DOWN_TENANT", policy, {
      doc: "The same for the limits of tenants; without effect while POSTHORN_TENANT_MAX_PER_MINUTE is 0.",
    }),
    global: optional("POSTHORN_LIMITS_ON_REDIS_DOWN_GLOBAL", policy, {
      doc: "The same for the limit of all tenants; without effect while POSTHORN_GLOBAL_MAX_PER_MINUTE is 0.",
    }),
  },
};
