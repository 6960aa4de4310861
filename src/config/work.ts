/** Settings of the path a notification takes: accept, route, reconcile, schedule, inbox and stream. */

import { integer, milliseconds, path } from "./kinds.ts";
import { option, optional } from "./option.ts";

export const accept = {
  groupWindowMs: option("POSTHORN_ACCEPT_GROUP_WINDOW_MS", milliseconds(0, 100), {
    default: 10,
    doc: "While a tenant's Sends keep coming, those within it share one commit, message and decision; a lone one waits for nothing.",
  }),
  groupMaxItems: option("POSTHORN_ACCEPT_GROUP_MAX_ITEMS", integer(1, 5_000), {
    default: 500,
    doc: "A group commits at once when it has this many items.",
  }),
  dedupWindowSeconds: option("POSTHORN_ACCEPT_DEDUP_WINDOW_SECONDS", integer(1, 604_800), {
    default: 300,
    doc: "How long a dedup key suppresses repeats when the call does not say.",
  }),
  maxWaiting: option("POSTHORN_ACCEPT_MAX_WAITING", integer(1, 10_000_000), {
    default: 50_000,
    doc: "Notifications waiting to be stored; more are refused as OVERLOADED, but for tenants of whom at most 100 wait, which may be as many again. About two seconds of work, and nine beside other tenants' little: longer, and callers have given up.",
  }),
  idempotencyTtlHours: option("POSTHORN_ACCEPT_IDEMPOTENCY_TTL_HOURS", integer(24, 720), {
    default: 24,
    doc: "How long an idempotency key is remembered; at least the day a retrying caller may take.",
  }),
};

/** As many as one message of the queue has. */
const CHUNK_MAX = 250;

export const route = {
  concurrencyPerLane: option("POSTHORN_ROUTE_CONCURRENCY_PER_LANE", integer(1, 64), {
    default: 2,
    doc: "Chunks decided at the same time in each lane: one is computed while the other commits. Divided among the shards that have work at the time, to each at least one.",
  }),
  chunkMinItems: option("POSTHORN_ROUTE_CHUNK_MIN_ITEMS", integer(1, CHUNK_MAX), {
    default: 50,
    doc: "Notifications decided in one go at least, where that many wait: what a lane begins with, and comes back to when memory is short.",
  }),
  chunkMaxItems: option("POSTHORN_ROUTE_CHUNK_MAX_ITEMS", integer(1, CHUNK_MAX), {
    default: CHUNK_MAX,
    doc: "The same at most: what a lane grows to while more wait than it takes in one go.",
  }),
  chunkTargetMs: option("POSTHORN_ROUTE_CHUNK_TARGET_MS", milliseconds(10, 10_000), {
    default: 500,
    doc: "A chunk that took longer is followed by one of half the size, so that nobody waits long for the turn. Many times what a full one takes when all is well.",
  }),
};

/** How much work, on its way into the record and to its decision, gives way to what other tenants have little of. */
export const giveWay = {
  pieces: option("POSTHORN_GIVE_WAY_PIECES", integer(1, 64), {
    default: 1,
    doc: "While CRITICAL notifications (which HIGH ones do not give way to) or other tenants' little come, this many large pieces of work are stored or decided at the same time by this process. Try more where Postgres has many processors to itself.",
  }),
  restPercent: option("POSTHORN_GIVE_WAY_REST_PERCENT", integer(0, 1_000), {
    default: 100,
    doc: "While other tenants' little comes, how long this process rests after such a piece, in percent of the time that it took; 50 ms at most. 0: not at all, where floods are to have what others leave.",
  }),
};

export const memory = {
  thresholdMb: option("POSTHORN_MEMORY_THRESHOLD_MB", integer(64, 1_048_576), {
    aliases: ["NOTIFICATION_MEMORY_LIMIT_MB"],
    default: 256,
    doc: "Live memory (heap and buffers after a full garbage collection) above which work that can wait stays on the queue; at most three quarters of Node's heap limit. A process that does nothing has 61 MB alive, one with 10,000 streams on as many connections 225 MB; what streams hold leaves at least a quarter of this to work, however many there are.",
  }),
};

export const reconcile = {
  afterMs: option("POSTHORN_RECONCILE_AFTER_MS", milliseconds(1_000, 86_400_000), {
    default: 30_000,
    doc: "An accepted notification untouched for this long is looked for on the queue and published again.",
  }),
  intervalMs: option("POSTHORN_RECONCILE_INTERVAL_MS", milliseconds(100, 3_600_000), {
    default: 10_000,
    doc: "How often that is looked at.",
  }),
};

export const schedule = {
  tickMs: option("POSTHORN_SCHEDULE_TICK_MS", milliseconds(10, 1_000), {
    default: 250,
    doc: "How often due work is claimed. Due means within 1 s, so a quarter of that leaves room for load.",
  }),
  batchMinSize: option("POSTHORN_SCHEDULE_BATCH_MIN_SIZE", integer(1, 10_000), {
    default: 50,
    doc: "Due items claimed at once at least, where that many are due: what it begins with, and comes back to when memory is short.",
  }),
  batchSize: option("POSTHORN_SCHEDULE_BATCH_SIZE", integer(1, 10_000), {
    default: 1_000,
    doc: "The same at most: what it grows to while more is due. A full batch is followed by the next without waiting.",
  }),
  batchTargetMs: option("POSTHORN_SCHEDULE_BATCH_TARGET_MS", milliseconds(10, 10_000), {
    default: 500,
    doc: "A batch that took longer is followed by one of half the size, so that what is more urgent does not wait long behind it.",
  }),
  maxPerTenant: option("POSTHORN_SCHEDULES_MAX_PER_TENANT", integer(1, 1_000_000), {
    default: 1_000,
    doc: "Schedules that a tenant may have which have not ended. Each may be looked at every hour.",
  }),
  maxDeadlinesPerUser: option("POSTHORN_DEADLINES_MAX_PER_USER", integer(1, 100_000), {
    default: 1_000,
    doc: "Deadlines to come that a user may have. When the user changes how they are reminded, all are changed with it.",
  }),
};

export const stream = {
  heartbeatMs: option("POSTHORN_STREAM_HEARTBEAT_MS", milliseconds(100, 25_000), {
    default: 20_000,
    doc: "Silence after which a stream says it lives. Proxies cut at 60 s; clients give up after 2.5 of these.",
  }),
  queueMaxMessages: option("POSTHORN_STREAM_QUEUE_MAX_MESSAGES", integer(1, 100_000), {
    default: 256,
    doc: "Events waiting for one slow device, then it is told to resume.",
  }),
  queueMaxBytes: option("POSTHORN_STREAM_QUEUE_MAX_BYTES", integer(4_096, 2 ** 30), {
    default: 2 ** 20,
    doc: "The same in bytes.",
  }),
  maxAgeMs: option("POSTHORN_STREAM_MAX_AGE_MS", milliseconds(1_000), {
    default: 3_600_000,
    doc: "A stream ends at this age, or with its token, and resumes: permissions and load are looked at again.",
  }),
  maxStreamsPerUser: option("POSTHORN_STREAM_MAX_PER_USER", integer(1, 10_000), {
    default: 20,
    doc: "Streams one user may have open on one process.",
  }),
  drainMs: option("POSTHORN_STREAM_DRAIN_MS", milliseconds(0, 300_000), {
    default: 8_000,
    doc: "Over how long the streams of a stopping process are asked to go elsewhere, so that they do not come all at once; four fifths at most of the time that its calls have.",
  }),
};

export const inbox = {
  persistDays: option("POSTHORN_INBOX_PERSIST_DAYS", integer(1, 3_650), {
    default: 90,
    doc: "How long an entry stays in the inbox. Entries are kept by month, so it acts by whole months.",
  }),
  maxUnread: option("POSTHORN_INBOX_MAX_UNREAD", integer(1, 1_000_000), {
    default: 1_000,
    doc: "Unread entries one user can have; beyond it, the oldest are archived.",
  }),
};

export const channels = {
  devSink: optional("POSTHORN_DEV_SINK", path, {
    doc: "Development only: a folder of files that take what is sent to outside channels, `email.jsonl` and so on, a line of JSON each. Unset: there are none of these channels.",
  }),
};
