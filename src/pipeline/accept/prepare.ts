import { toBinary } from "@bufbuild/protobuf";
import { durationMs, type Timestamp, timestampDate } from "@bufbuild/protobuf/wkt";
import { EscalationSchema, Priority, Status } from "#gen/posthorn/v1/notification_pb.ts";
import type { SendRequest } from "#gen/posthorn/v1/send_service_pb.ts";
import type { Warning } from "#gen/posthorn/v1/warning_pb.ts";
import { invalidField, notFound } from "#src/errors.ts";
import { channelBits } from "#src/notifications/channel-bits.ts";
import { encodeContent } from "#src/notifications/encode-content.ts";
import { instantOfLocal } from "#src/notifications/local-time.ts";
import { OWN_TAGS } from "#src/notifications/own-tags.ts";
import { checkSunset, warningsOf } from "#src/types/deprecation.ts";
import { type PayloadRules, type TypedContent, typedContent } from "./typed-content.ts";

/** What a type gives a Send that says nothing itself; without a contract it takes any data. */
export type TypeDefaults = PayloadRules & {
  category: string;
  defaultPriority: number;
  defaultChannels: readonly number[];
  defaultTtlMs: number | null;
  group: boolean;
  /** Encoded posthorn.v1.TypeDeprecation; null: it is not deprecated. */
  deprecation: Uint8Array | null;
};

/** One notification to be, complete but for its recipient. */
export type Draft = {
  type: string;
  category: string;
  priority: number;
  /** Bit n is set when channel n was asked for. */
  channels: number;
  content: Uint8Array;
  /** The same in a recipient's language; undefined: as `content`. Undefined as a whole: it is the same in all. */
  contentIn: ((language: string) => Uint8Array | undefined) | undefined;
  /** The contract that judged its payload; undefined: none. */
  contractId: string | undefined;
  tags: string[];
  bypassLimits: boolean;
  dedup: { key: string; windowMs: number } | undefined;
  collapseKey: string | undefined;
  senderId: string | undefined;
  groupKey: string | undefined;
  /** It joins no batch and no digest. */
  byItself: boolean;
  /** Encoded posthorn.v1.Escalation, as asked for. */
  escalation: Uint8Array | undefined;
  /** What its sender is told. */
  warnings: Warning[];
  /** The time it was asked for, past or not; undefined: at once. */
  asked(zone: string): Date | undefined;
  /** When it is due and when it loses its worth, for a recipient in this zone. */
  times(zone: string): { scheduledAt: Date | undefined; expiresAt: Date | undefined };
  /** The wall-clock time that `asked` and `times` read in the zone, and how long after it what is sent expires, if so. */
  local: { time: string; ttlMs: number | undefined } | undefined;
};

const DAY_MS = 86_400_000;
const HORIZON_MS = 400 * DAY_MS;

/**
 * Turns a valid SendRequest into a draft: fills in the type's defaults and checks what the contract's rules cannot say.
 * Pure. Throws INVALID_REQUEST naming the field, NOT_FOUND for an unknown type, or TYPE_SUNSET.
 */
export function prepare(
  request: SendRequest,
  type: TypeDefaults | undefined,
  now: Date,
  defaultDedupMs: number,
): Draft {
  checkTags(request.tags);
  if (type !== undefined) checkSunset(type, now);
  return draftOf(request, type, now, defaultDedupMs);
}

/**
 * The same of a request whose tags may be ones that are not for senders, and of a type whose sunset may have come. `judged`:
 * its content is as this has stored it before.
 */
export function draftOf(
  request: SendRequest,
  type: TypeDefaults | undefined,
  now: Date,
  defaultDedupMs: number,
  { judged = false } = {},
): Draft {
  if (type === undefined) throw notFound("type");
  const content = request.content;
  if (content === undefined) throw invalidField("content", "is required");
  const typed: TypedContent = judged ? { content } : typedContent(content, type);
  const schedule = request.schedule;
  const scheduledAt = schedule.case === "scheduleTime" ? checkedTime("schedule_time", schedule.value, now) : undefined;
  const local = schedule.case === "localScheduleTime" ? schedule.value : undefined;
  if (local !== undefined) checkHorizon("local_schedule_time", instantOfLocal(local, "UTC"), now);
  const expireTime =
    request.expiry.case === "expireTime" ? checkedTime("expire_time", request.expiry.value, now) : undefined;
  if (expireTime !== undefined && expireTime.getTime() <= Math.max(now.getTime(), scheduledAt?.getTime() ?? 0)) {
    throw invalidField("expire_time", "must lie in the future and after schedule_time");
  }
  const asked = (zone: string) => (local === undefined ? scheduledAt : instantOfLocal(local, zone));
  const ttlMs = request.expiry.case === "ttl" ? durationMs(request.expiry.value) : (type.defaultTtlMs ?? undefined);
  return {
    type: type.key,
    category: type.category,
    priority: request.priority === Priority.UNSPECIFIED ? type.defaultPriority : request.priority,
    channels: channelBits(request.channels.length > 0 ? request.channels : type.defaultChannels),
    content: encodeContent(typed.content),
    contentIn: encodedIn(typed),
    contractId: judged ? undefined : type.contract?.id,
    tags: request.tags,
    bypassLimits: request.bypassRateLimit,
    dedup:
      request.dedupKey === ""
        ? undefined
        : {
            key: request.dedupKey,
            windowMs: request.dedupWindow === undefined ? defaultDedupMs : durationMs(request.dedupWindow),
          },
    collapseKey: request.collapseKey || undefined,
    senderId: request.senderId || undefined,
    groupKey: request.groupKey || (type.group ? `type:${type.key}` : undefined),
    byItself: request.batchable === false,
    escalation: request.escalation && toBinary(EscalationSchema, request.escalation),
    warnings: warningsOf(type),
    local: local === undefined ? undefined : { time: local, ttlMs: expireTime === undefined ? ttlMs : undefined },
    asked,
    times(zone) {
      const wanted = asked(zone);
      const due = wanted !== undefined && wanted.getTime() > now.getTime() ? wanted : undefined;
      const from = due ?? now;
      const expiresAt = expireTime ?? (ttlMs === undefined ? undefined : new Date(from.getTime() + ttlMs));
      return { scheduledAt: due, expiresAt };
    },
  };
}

/** Encodes what is worded in several languages once for each. */
export function encodedIn({ contentIn }: TypedContent): Draft["contentIn"] {
  if (contentIn === undefined) return undefined;
  const known = new Map<string, Uint8Array | undefined>();
  return (language) => {
    if (!known.has(language)) {
      const content = contentIn(language);
      known.set(language, content && encodeContent(content));
    }
    return known.get(language);
  };
}

/** The status a draft begins with: it is queued at once, or waits for its time. */
export function firstStatus(scheduledAt: Date | undefined): typeof Status.ACCEPTED | typeof Status.SCHEDULED {
  return scheduledAt === undefined ? Status.ACCEPTED : Status.SCHEDULED;
}

/** Throws INVALID_REQUEST naming the first tag that is not for senders. */
export function checkTags(tags: readonly string[]): void {
  tags.forEach((tag, index) => {
    const own = OWN_TAGS.find((prefix) => tag.startsWith(prefix));
    if (own !== undefined) throw invalidField(`tags[${index}]`, `must not begin with "${own}", which the server sets`);
  });
}

/** A time that is asked for: at most 400 days ahead. Throws INVALID_REQUEST naming the field. */
export function checkedTime(field: string, time: Timestamp, now: Date): Date {
  const date = timestampDate(time);
  if (Number.isNaN(date.getTime())) throw invalidField(field, "is not a time");
  return checkHorizon(field, date, now);
}

function checkHorizon(field: string, date: Date, now: Date): Date {
  if (date.getTime() > now.getTime() + HORIZON_MS) throw invalidField(field, "must be at most 400 days ahead");
  return date;
}
