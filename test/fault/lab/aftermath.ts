import { fromBinary } from "@bufbuild/protobuf";
import type { Sql } from "postgres";
import { Channel, Reason, Status, TimelineEntrySchema } from "#gen/posthorn/v1/notification_pb.ts";
import { BatchRole } from "#src/batches/role.ts";
import { ChainState } from "#src/escalation/state.ts";
import { handedOver } from "./channels.ts";
import { type Account, ONCE } from "./sender.ts";

// What comes of notifications after they are accepted or decided, by itself: batches close, channels are handed what is
// theirs, escalations go on, schedules send.

/** How much of that is still to come; members of a batch that was dissolved wait for it while no batch is open. */
export async function yetToCome(sql: Sql, tenantId: string): Promise<number> {
  const [row] = await sql<[{ n: number }]>`
    select ((select count(*) from batches where tenant_id = ${tenantId} and state in (1, 2))
      + (select count(*) from hand_overs where tenant_id = ${tenantId})
      + (select count(*) from escalations where tenant_id = ${tenantId} and state = ${ChainState.WAITING})
      + (select count(*) from rule_changes where tenant_id = ${tenantId})
      + (select count(*) from notifications where tenant_id = ${tenantId}
        and status = ${Status.BATCHED} and batch_role = ${BatchRole.MEMBER})
      + (select count(*) from schedules
        where tenant_id = ${tenantId} and fires_at <= now() + interval '5 seconds'))::int as n`;
  return row.n;
}

type Row = {
  id: string;
  key: string;
  type: string;
  status: number;
  batchId: string | null;
  batchRole: number | null;
  confirmedAt: Date | null;
};

type Told = { id: string; status: number; channel: number; reason: number; step: number; confirmed: boolean };

/**
 * Everything of that that is not as promised, in words:
 *
 * - a batch is closed once: it became one notification, of all its members, which share its fate;
 * - a channel is handed what is its, with one key for each notification, channel and step; that is told once, and nothing
 *   else is, but that nobody knows whether it was;
 * - what is at most once is handed over so, and of nothing else does nobody know;
 * - each step of an escalation is taken once, none after its end, and the end is told once;
 * - a confirmation that was answered is noted once;
 * - an occurrence of a schedule is sent once.
 *
 * `channels`: their folder.
 */
export async function brokenAftermath(
  sql: Sql,
  tenantId: string,
  account: Account,
  channels: string | undefined,
): Promise<string[]> {
  const rows = await sql<Row[]>`
    select id, tags[1] as key, type, status, batch_id as "batchId", batch_role as "batchRole",
      confirmed_at as "confirmedAt"
    from notifications where tenant_id = ${tenantId}`;
  const told = await historyOf(sql, tenantId);
  const left = await yetToCome(sql, tenantId);
  return [
    ...(left === 0
      ? []
      : [`${left} batches, members, hand-overs, escalations, changes of rules or schedules are left over`]),
    ...(await wrongBatches(sql, tenantId, rows)),
    ...(await wrongHandOvers(sql, tenantId, { rows, told, account, channels })),
    ...(await wrongEscalations(sql, tenantId, { rows, told, account })),
    ...(await wrongSchedules(sql, tenantId, account)),
  ];
}

async function historyOf(sql: Sql, tenantId: string): Promise<ReadonlyMap<string, Told[]>> {
  const entries = await sql<(Omit<Told, "step" | "confirmed"> & { detail: Uint8Array | null })[]>`
    select notification_id as id, status, channel, reason, detail from timeline where tenant_id = ${tenantId}`;
  const told = entries.map(({ detail, ...entry }): Told => {
    const { step, confirmed } = fromBinary(TimelineEntrySchema, detail ?? new Uint8Array());
    return { ...entry, step, confirmed };
  });
  return Map.groupBy(told, ({ id }) => id);
}

async function wrongBatches(sql: Sql, tenantId: string, rows: readonly Row[]): Promise<string[]> {
  const batches = await sql<{ id: string; state: number; size: number; next: string | null }[]>`
    select id, state, size, notification_id as next from batches where tenant_id = ${tenantId}`;
  const known = new Map(batches.map((batch) => [batch.id, batch]));
  const of = (role: number) => rows.filter(({ batchRole, batchId }) => batchRole === role && batchId !== null);
  const wholes = Map.groupBy(of(BatchRole.WHOLE), ({ batchId }) => batchId ?? "");
  const merged = Map.groupBy(of(BatchRole.MERGED), ({ batchId }) => batchId ?? "");
  const broken = of(BatchRole.MEMBER).map(({ key }) => `${key} is in a batch that is over`);
  for (const [id, members] of merged) {
    const [whole, another] = wholes.get(id) ?? [];
    if (whole === undefined) broken.push(`batch ${id} of ${members.length} became nothing`);
    else if (another !== undefined) broken.push(`batch ${id} was closed twice`);
    const others = members.filter(({ status }) => fate(status) !== fate(whole?.status ?? 0));
    broken.push(...others.map(({ key, status }) => `${key} is ${status}, its batch's notification ${whole?.status}`));
  }
  for (const [id, [whole]] of wholes) {
    const batch = known.get(id);
    const members = merged.get(id)?.length ?? 0;
    if (batch?.next !== whole?.id) broken.push(`batch ${id} became ${batch?.next}, and ${whole?.id} says so of itself`);
    if (batch?.size !== members) broken.push(`batch ${id} says it had ${batch?.size} members, and has ${members}`);
  }
  const ids = new Set(rows.map((row) => row.id));
  for (const { id, next } of batches)
    if (next !== null && !ids.has(next)) broken.push(`batch ${id} became ${next}, which is not there`);
  return broken;
}

/** A notification of a batch is read as a whole, and its members with it. */
const fate = (status: number) => (status === Status.READ ? Status.DELIVERED : status);

type Seen = { rows: readonly Row[]; told: ReadonlyMap<string, readonly Told[]>; account: Account };

const isOutside = (channel: number) => channel > Channel.IN_APP;
const keyOf = (id: string, step: number, channel: number) => `${id}:${step}:${channel}`;

/** What channels say they were handed, against what is told of that. */
async function wrongHandOvers(
  sql: Sql,
  tenantId: string,
  { rows, told, account, channels }: Seen & { channels: string | undefined },
): Promise<string[]> {
  if (channels === undefined) return [];
  const broken: string[] = [];
  const handed = await handedOver(channels);
  for (const { idempotencyKey: key, notificationId: id, step, channel } of handed)
    if (key !== keyOf(id, step, channel)) broken.push(`${key} is the key of ${keyOf(id, step, channel)}`);
  const given = new Set(handed.map(({ idempotencyKey }) => idempotencyKey));

  const history = rows.flatMap((row) => told.get(row.id)?.map((entry) => ({ ...entry, row })) ?? []);
  const outcomes = history.filter(
    // What was merged is told the way of its batch's notification.
    ({ row, channel, status, reason }) =>
      row.batchRole !== BatchRole.MERGED &&
      isOutside(channel) &&
      (status === Status.DELIVERED || reason === Reason.CHANNEL_UNAVAILABLE || reason === Reason.OUTCOME_UNKNOWN),
  );
  const keys = outcomes.map(({ id, step, channel }) => keyOf(id, step, channel));
  broken.push(...repeated(keys).map((key) => `${key} is told twice`));
  const toldKeys = new Set(keys);
  for (const { id, step, channel, reason, row } of outcomes) {
    const key = keyOf(id, step, channel);
    const isUnknown = reason === Reason.OUTCOME_UNKNOWN;
    if (!isUnknown && !given.has(key)) broken.push(`${key} is told, and no channel was given it`);
    if (isUnknown && row.type !== ONCE) broken.push(`${key} is unknown, and might have been given again`);
  }
  const once = new Set(rows.flatMap(({ id, type }) => (type === ONCE ? [id] : [])));
  const givenOnce = handed.filter(({ notificationId }) => once.has(notificationId));
  broken.push(...repeated(givenOnce.map((each) => each.idempotencyKey)).map((key) => `${key} was given twice`));
  const answered = await answeredOf(sql, tenantId);
  for (const key of given) {
    const [id = "", step] = key.split(":");
    // Somebody answered between the hand-over and the note of it, by a process that was killed.
    if (!toldKeys.has(key) && !(step !== "0" && answered.has(id)))
      broken.push(`${key} was given to a channel, and is not told`);
  }
  for (const { id, key, batchRole } of rows) {
    if (batchRole !== null) continue;
    for (const channel of account.outside.get(key) ?? [])
      if (!toldKeys.has(keyOf(id, 0, channel))) broken.push(`${key} was not handed to channel ${channel}`);
  }
  return broken;
}

async function answeredOf(sql: Sql, tenantId: string): Promise<ReadonlySet<string>> {
  const rows = await sql<{ id: string }[]>`
    select notification_id as id from escalations where tenant_id = ${tenantId}
      and state in (${ChainState.CONFIRMED}, ${ChainState.READ}, ${ChainState.CANCELLED})`;
  return new Set(rows.map(({ id }) => id));
}

async function wrongEscalations(sql: Sql, tenantId: string, { rows, told, account }: Seen): Promise<string[]> {
  const chains = await sql<{ id: string; state: number; taken: number; steps: { channel: number }[] }[]>`
    select notification_id as id, state, taken, steps from escalations where tenant_id = ${tenantId}`;
  const known = new Map(chains.map((chain) => [chain.id, chain]));
  const broken: string[] = [];
  for (const { id, key, confirmedAt } of rows) {
    const history = told.get(id) ?? [];
    const confirmations = history.filter(({ confirmed }) => confirmed).length;
    const wanted = account.confirming.has(id) || confirmedAt !== null ? 1 : 0;
    if (confirmations !== wanted) broken.push(`${key} is told to be confirmed ${confirmations} times, not ${wanted}`);
    const steps = account.escalating.get(key);
    const chain = known.get(id);
    if (steps === undefined) continue;
    if (chain === undefined) {
      broken.push(`${key} does not escalate`);
      continue;
    }
    const taken = history.flatMap(({ step }) => (step > 0 ? [step] : []));
    const all = Array.from({ length: chain.taken }, (_, n) => n + 1);
    const isOver = chain.state === ChainState.EXHAUSTED;
    const missing = isOver ? all.filter((step) => !taken.includes(step)) : [];
    if (isOver && chain.taken !== steps) broken.push(`${key} ended after ${chain.taken} of ${steps} steps`);
    if (missing.length > 0) broken.push(`of ${key} the steps ${missing} are not told`);
    broken.push(...repeated(taken.map((step) => `step ${step} of ${key}`)).map((which) => `${which} is told twice`));
    broken.push(...taken.filter((step) => step > chain.taken).map((step) => `step ${step} of ${key} was never taken`));
    const unanswered = history.filter(({ reason }) => reason === Reason.CONFIRMATION_MISSING).length;
    if (unanswered !== (isOver ? 1 : 0)) broken.push(`${key} in state ${chain.state}: ${unanswered} times unanswered`);
    if (confirmedAt !== null && chain.state !== ChainState.CONFIRMED && !isOver)
      broken.push(`${key} is confirmed, and its escalation in state ${chain.state}`);
  }
  return broken;
}

async function wrongSchedules(sql: Sql, tenantId: string, account: Account): Promise<string[]> {
  const schedules = await sql<
    { key: string; createdAt: Date; fired: number; missed: number; users: number; rows: number; doubles: number }[]
  >`
    select s.key, s.created_at as "createdAt", s.fired::int, s.missed::int, cardinality(s.user_ids)::int as users,
      count(n.id)::int as rows, (count(n.id) - count(distinct n.user_id))::int as doubles
    from schedules s
    left join notifications n on n.tenant_id = s.tenant_id and n.tags @> array['schedule:' || s.key]
    where s.tenant_id = ${tenantId} group by s.tenant_id, s.key, s.created_at, s.fired, s.missed, s.user_ids`;
  const broken: string[] = [];
  for (const { key, createdAt, fired, missed, users, rows, doubles } of schedules) {
    const first = account.schedules.get(key);
    const due = first !== undefined && createdAt < first ? 1 : 0;
    if (fired + missed !== due) broken.push(`schedule ${key} was due ${due} times, sent ${fired} and missed ${missed}`);
    if (rows !== fired * users || doubles > 0)
      broken.push(`schedule ${key}: ${rows} for ${fired} times ${users} users`);
  }
  return broken;
}

export function repeated(names: readonly string[]): string[] {
  const seen = new Set<string>();
  return names.filter((name) => seen.size === seen.add(name).size);
}
