import { fromBinary } from "@bufbuild/protobuf";
import { type SQL, sql } from "drizzle-orm";
import { type Content, ContentSchema, Priority, Status } from "#gen/posthorn/v1/notification_pb.ts";
import { SendRequestSchema } from "#gen/posthorn/v1/send_service_pb.ts";
import { breathe } from "#src/breathe.ts";
import { plain } from "#src/store/arrays.ts";
import { uuidFloor } from "#src/store/partitions.ts";
import type { Db } from "#src/store/store.ts";
import { GENERAL } from "../type.ts";
import { type Break, MAX_BREAKS } from "./breaks.ts";
import type { Contract } from "./contract.ts";
import { readAny, readBytes, readJson } from "./read.ts";

/** How much was looked at. */
export type Reach = { notifications: number; batched: number; fanouts: number; planned: number; capped: boolean };

/** Runs one page: in a transaction of its own, or in the one that holds the type. */
export type OnDb = <T>(page: (db: Db) => Promise<T>) => Promise<T>;

/** As the contract says. */
const MAX_NOTIFICATIONS = 20_000;
const MAX_OTHERS = 2_000;
/** Of all types: the waiting are not indexed by theirs. */
const MAX_SEEN = 200_000;
const PAGE = 500;
/** Ids say when they were accepted by the clock of whoever did it. */
const CLOCK_SKEW_MS = 60_000;
const FIRST = "00000000-0000-0000-0000-000000000000";

const WAITING = [
  ...[Priority.CRITICAL, Priority.HIGH, Priority.NORMAL, Priority.LOW].map((priority) => ({
    status: Status.ACCEPTED,
    priority,
  })),
  ...[Status.SCHEDULED, Status.HELD, Status.BATCHED].map((status) => ({ status, priority: undefined })),
];

/** Which tenant's type, and what its payloads shall be. `since`: only what was stored or changed after it. */
export type Looked = { tenantId: string; type: string; contract: Contract; now: Date; since: Date | undefined };

/**
 * Reads all payloads of a type that wait and validates them as a contract: those that would not be valid break. In pages,
 * so that nobody waits for it; bounded, and says so.
 */
export async function lookAtWaiting(on: OnDb, looked: Looked): Promise<{ breaks: Break[]; reach: Reach }> {
  const reach: Reach = { notifications: 0, batched: 0, fanouts: 0, planned: 0, capped: false };
  const breaks: Break[] = [];
  const note = (path: string, wrong: string | undefined): void => {
    if (wrong !== undefined && breaks.length < MAX_BREAKS)
      breaks.push({ rule: "PAYLOAD_WAITING", path, description: wrong, file: "" });
  };
  const fanouts = new Set<string>();
  await lookAtNotifications(on, looked, reach, fanouts, note);
  await lookAtFanouts(on, looked, reach, fanouts, note);
  await lookAtSchedules(on, looked, reach, note);
  await lookAtDeadlines(on, looked, reach, note);
  return { breaks, reach };
}

type Note = (path: string, wrong: string | undefined) => void;

async function lookAtNotifications(
  on: OnDb,
  { tenantId, type, contract, since }: Looked,
  reach: Reach,
  fanouts: Set<string>,
  note: Note,
): Promise<void> {
  const newest = since && uuidFloor(new Date(since.getTime() - CLOCK_SKEW_MS));
  const changed = since === undefined ? sql`true` : sql`(id >= ${newest}::uuid or updated_at >= ${at(since)})`;
  let seen = 0;
  for (const { status, priority } of WAITING) {
    for (let after: string | undefined = FIRST; after !== undefined; ) {
      const from: string = after;
      const where = sql`status = ${sql.raw(String(status))} ${priority === undefined ? sql`` : sql`and priority = ${priority}`}`;
      // With the lock, whoever sends the type waits: what did not change stays in the database, and is passed in one go.
      const [looksAt, isTold] = since === undefined ? [PAGE, sql`true`] : [MAX_SEEN, sql`mine`];
      const rows = await on((db) =>
        db.execute<{ id: string; content: Uint8Array | null; fanoutId: string | null; mine: boolean }>(sql`
          select id, case when mine then content end as content, fanout_id as "fanoutId", mine from (
            select id, content, fanout_id, type = ${type} and ${changed} as mine from notifications
            where tenant_id = ${tenantId}::uuid and ${where} and id > ${from}::uuid
            order by id limit ${looksAt}) as page
          where ${isTold} order by id limit ${PAGE}`),
      );
      for (const { id, content, fanoutId, mine } of rows) {
        if (!mine) continue;
        await breathe();
        if (status === Status.BATCHED) reach.batched++;
        else reach.notifications++;
        if (content !== null) note(`notification:${id}`, wrongIn(contract, fromBinary(ContentSchema, content)));
        else if (fanoutId !== null) fanouts.add(fanoutId);
      }
      seen += rows.length;
      if (reach.notifications + reach.batched > MAX_NOTIFICATIONS || seen > MAX_SEEN) {
        reach.capped = true;
        return;
      }
      after = rows.length < PAGE ? undefined : rows.at(-1)?.id;
    }
  }
}

/** Those that go on, and those of which something waits: they hold its content. */
async function lookAtFanouts(
  on: OnDb,
  { tenantId, type, contract }: Looked,
  reach: Reach,
  waiting: ReadonlySet<string>,
  note: Note,
): Promise<void> {
  const rows = await on((db) =>
    db.execute<{ id: string; request: Uint8Array; content: Uint8Array; runs: boolean }>(sql`
      select id, request, content, state = 1 as runs from fanouts
      where tenant_id = ${tenantId}::uuid and (lease_until is not null and state = 1
        or id = any (${plain([...waiting].slice(0, MAX_OTHERS))}::uuid[]))
      order by id limit ${MAX_OTHERS + 1}`),
  );
  if (rows.length > MAX_OTHERS || waiting.size > MAX_OTHERS) reach.capped = true;
  for (const { id, request, content, runs } of rows.slice(0, MAX_OTHERS)) {
    if ((fromBinary(SendRequestSchema, request).type || GENERAL) !== type) continue;
    await breathe();
    if (runs) reach.fanouts++;
    note(`fanout:${id}`, wrongIn(contract, fromBinary(ContentSchema, content)));
  }
}

/** They are judged anew whenever they are due, so they have to have a payload. */
async function lookAtSchedules(on: OnDb, { tenantId, type, contract, since }: Looked, reach: Reach, note: Note) {
  const changed = since === undefined ? sql`true` : sql`updated_at >= ${at(new Date(since.getTime() - CLOCK_SKEW_MS))}`;
  const rows = await on((db) =>
    db.execute<{ key: string; request: Uint8Array }>(sql`
      select key, request from schedules where tenant_id = ${tenantId}::uuid and ended_at is null and ${changed}
      order by key limit ${MAX_OTHERS + 1}`),
  );
  if (rows.length > MAX_OTHERS) reach.capped = true;
  for (const { key, request } of rows.slice(0, MAX_OTHERS)) {
    const { type: named, content } = fromBinary(SendRequestSchema, request);
    if ((named || GENERAL) !== type || content === undefined) continue;
    await breathe();
    reach.planned++;
    note(`schedule:${key}`, wrongToSend(contract, content));
  }
}

async function lookAtDeadlines(on: OnDb, { tenantId, type, contract, now, since }: Looked, reach: Reach, note: Note) {
  const changed: SQL =
    since === undefined ? sql`true` : sql`updated_at >= ${at(new Date(since.getTime() - CLOCK_SKEW_MS))}`;
  const rows = await on((db) =>
    db.execute<{ userId: string; key: string; content: Uint8Array }>(sql`
      select user_id as "userId", key, content from deadlines
      where tenant_id = ${tenantId}::uuid and type = ${type} and at > ${at(now)} and ${changed}
      order by user_id, key limit ${MAX_OTHERS + 1}`),
  );
  if (rows.length > MAX_OTHERS) reach.capped = true;
  for (const { userId, key, content } of rows.slice(0, MAX_OTHERS)) {
    reach.planned++;
    await breathe();
    note(`deadline:${userId}/${key}`, wrongIn(contract, fromBinary(ContentSchema, content)));
  }
}

/** What is stored without a payload was sent before there was a contract, and stays as it is. */
function wrongIn(contract: Contract, { typed }: Content): string | undefined {
  return typed === undefined ? undefined : firstOf(readBytes(contract, typed.value));
}

function wrongToSend(contract: Contract, { payload, data }: Content): string | undefined {
  if (payload !== undefined) return firstOf(readAny(contract, payload));
  return data === undefined ? "sends no payload" : firstOf(readJson(contract, data));
}

/** Who pushes a contract, or only asks, need not be allowed to read notifications. */
function firstOf(read: ReturnType<typeof readBytes>): string | undefined {
  return "faults" in read ? read.toOthers : undefined;
}

function at(time: Date): SQL {
  return sql`${time.toISOString()}::timestamptz`;
}
