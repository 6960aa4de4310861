import { clone, create } from "@bufbuild/protobuf";
import { timestampFromDate } from "@bufbuild/protobuf/wkt";
import { ErrorReason } from "#gen/posthorn/v1/error_pb.ts";
import {
  DeadlineSchema,
  type Schedule,
  ScheduleSchema,
  ScheduleService,
  Schedule_State as State,
} from "#gen/posthorn/v1/schedule_service_pb.ts";
import { SendRequestSchema } from "#gen/posthorn/v1/send_service_pb.ts";
import type { Warning } from "#gen/posthorn/v1/warning_pb.ts";
import { writeAudit } from "#src/audit/queries.ts";
import { takeSteps } from "#src/breathe.ts";
import type { Clock } from "#src/clock.ts";
import { deleteDeadline, upsertDeadline } from "#src/deadlines/change.ts";
import { toDeadline } from "#src/deadlines/deadline.ts";
import { offsetsOf } from "#src/deadlines/offsets.ts";
import { findDeadline, hasMoreDeadlines, pageDeadlines } from "#src/deadlines/queries.ts";
import { Fault, invalidField, invalidRequest, notFound, tooMany, within } from "#src/errors.ts";
import type { NewId } from "#src/ids.ts";
import type { Cancelled } from "#src/notifications/cancel.ts";
import { cancelWaiting } from "#src/notifications/cancel-waiting.ts";
import { scheduleTag } from "#src/notifications/own-tags.ts";
import { EVERYTHING } from "#src/notifications/queries.ts";
import { DEFAULT_TYPE } from "#src/pipeline/accept/accept.ts";
import { cancelFanoutsWith } from "#src/pipeline/accept/fanout.ts";
import { checkedTime, prepare } from "#src/pipeline/accept/prepare.ts";
import { remindersOf } from "#src/pipeline/accept/reminders.ts";
import type { UpdateDeps } from "#src/pipeline/accept/update.ts";
import { reminderOffsets } from "#src/preferences/merge.ts";
import { presentLevels } from "#src/preferences/present-levels.ts";
import { type Call, type Service, service } from "#src/rpc/call.ts";
import { applyMask, maskPaths } from "#src/rpc/field-mask.ts";
import type { Violations } from "#src/rpc/validate.ts";
import {
  changeSchedule,
  findSchedule,
  hasMoreSchedules,
  insertSchedule,
  lockSchedule,
  lockSchedules,
  pageSchedules,
  removeSchedule,
  sizeOf,
} from "#src/schedules/queries.ts";
import {
  checkTiming,
  definitionOf,
  known,
  preview,
  type ScheduleDefinition,
  type ScheduleRow,
  type Standing,
  standing,
  timingOf,
  toSchedule,
} from "#src/schedules/schedule.ts";
import { lastOn } from "#src/schedules/timing.ts";
import { keysetPage } from "#src/store/keyset.ts";
import type { PageTokens } from "#src/store/page-token.ts";
import type { Db, Store, Tx } from "#src/store/store.ts";
import { checkSunset } from "#src/types/deprecation.ts";
import type { NotificationTypeRow } from "#src/types/type.ts";

export type ScheduleServiceDeps = Pick<UpdateDeps, "findType" | "recipientsOf" | "scheduled" | "shownAnew"> & {
  store: Store;
  clock: Clock;
  newId: NewId;
  pageTokens: PageTokens;
  violations: Violations;
  /** This process's counter slots, used in turn so that changes at the same time do not wait for each other. */
  slots: readonly number[];
  config: { maxPerTenant: number; maxDeadlinesPerUser: number };
  /** Tells the users' streams. Called after the commit. */
  cancelled(tenantId: string, notifications: readonly Cancelled[], at: Date): void;
};

const DEFAULT_PAGE = 50;
/** A client takes messages of 4 MiB; what stands beside the contents has its room. */
const PAGE_BYTES = 2 ** 20;
const CHANGEABLE = ["request", "recurrence", "local_start_time", "time_zone"] as const;

export function scheduleService(deps: ScheduleServiceDeps): Service {
  const { store, clock, newId, pageTokens } = deps;
  let turn = 0;
  const by = (call: Call) => ({ actor: call.actor, now: clock(), slot: deps.slots[turn++ % deps.slots.length] ?? 0 });
  const audit = (db: Db, call: Call, action: string, key: string) =>
    writeAudit(db, { tenantId: call.tenantId, id: newId(), actor: call.actor, action, target: `schedule:${key}` });
  /** Not in a transaction, which looking for occurrences would keep open. */
  const show = async (row: ScheduleRow) => ({ schedule: toSchedule(row, await takeSteps(preview(row, clock()))) });
  const showWith = async (row: ScheduleRow, warnings: Warning[]) => ({ ...(await show(row)), warnings });

  async function find({ tenantId }: Call, key: string): Promise<ScheduleRow> {
    const row = await store.tenantDb(tenantId, (db) => findSchedule(db, tenantId, key));
    if (row === undefined) throw notFound("schedule");
    return row;
  }

  /** What Send would refuse is refused now, not when it is due. `reaches`: throws TYPE_SUNSET if it would be sent too late. */
  async function checkRequest({ request = create(SendRequestSchema) }: Schedule, call: Call) {
    const type = await deps.findType(call.tenantId, request.type || DEFAULT_TYPE);
    const { warnings } = within("schedule.request", () => prepare(request, type, clock(), 0));
    const reaches = (firesAt: Date | null | undefined) => {
      if (type !== undefined && firesAt != null) checkSunset(type, firesAt);
    };
    return { warnings, reaches };
  }

  async function checkDeadlines(tx: Tx, tenantId: string, userId: string, now: Date): Promise<void> {
    const { maxDeadlinesPerUser } = deps.config;
    if (await hasMoreDeadlines(tx, tenantId, userId, maxDeadlinesPerUser, now))
      throw tooMany("deadline", maxDeadlinesPerUser, "Delete those of the user that were met or no longer count.");
  }

  /** Asked after one was added, with the tenant's schedules locked. */
  async function checkRoom(db: Db, { tenantId }: Call): Promise<void> {
    const { maxPerTenant } = deps.config;
    if (await hasMoreSchedules(db, tenantId, maxPerTenant))
      throw tooMany("schedule", maxPerTenant, "Delete one, or have one schedule send to a topic.");
  }

  /** How a schedule that is there begins anew by another definition: what takes long is looked for before it is locked. */
  async function beginning(definition: ScheduleDefinition, before: ScheduleRow) {
    const now = clock();
    const timing = await takeSteps(checkTiming(definition, now));
    const from = async ({ lastOccurrence: sent }: ScheduleRow) => {
      const lastOccurrence = lastOn(sent, before.timeZone, definition.timeZone);
      return { ...(await takeSteps(standing(timing, now, lastOccurrence))), lastOccurrence };
    };
    const begun = await from(before);
    return async (row: ScheduleRow): Promise<Partial<Standing & Pick<ScheduleRow, "lastOccurrence">>> => {
      // It may have been sent once more meanwhile.
      const standing = row.lastOccurrence === before.lastOccurrence ? begun : await from(row);
      if (standing.state !== State.ACTIVE) throw neverComes();
      return row.state === State.PAUSED
        ? { ...standing, state: State.PAUSED, occurrence: null, firesAt: null }
        : standing;
    };
  }

  /** Changes a schedule's standing, if it has another than the one wanted. */
  const stand = async (
    key: string,
    call: Call,
    action: string,
    change: (row: ScheduleRow) => Partial<Standing> | undefined,
  ) =>
    show(
      await store.tenantDb(call.tenantId, async (db) => {
        const row = await lockSchedule(db, call.tenantId, key);
        if (row === undefined) throw notFound("schedule");
        const changes = change(row);
        if (changes === undefined) return row;
        await audit(db, call, action, key);
        return changeSchedule(db, row, changes, clock());
      }),
    );

  return service(ScheduleService, {
    async createSchedule(request, call) {
      const asked = request.schedule ?? create(ScheduleSchema);
      const now = clock();
      const definition = definitionOf(asked);
      const begun = await takeSteps(standing(await takeSteps(checkTiming(definition, now)), now, null));
      if (begun.state !== State.ACTIVE) throw neverComes();
      const { warnings, reaches } = await checkRequest(asked, call);
      reaches(begun.firesAt);
      const row = await store.tenantDb(call.tenantId, async (db) => {
        await lockSchedules(db, call.tenantId);
        const made = await insertSchedule(db, call.tenantId, definition, begun, now);
        if (made === undefined) return undefined;
        await checkRoom(db, call);
        await audit(db, call, "schedule.create", made.key);
        return made;
      });
      if (row === undefined) {
        throw new Fault(ErrorReason.ALREADY_EXISTS, {
          message: `There is a schedule "${definition.key}" already. Change it with UpdateSchedule.`,
          metadata: { resource: "schedule" },
        });
      }
      return showWith(row, warnings);
    },

    getSchedule: async ({ key }, call) => show(await find(call, key)),

    async listSchedules(request, call) {
      const { items, nextPageToken } = await keysetPage(pageTokens, {
        query: [call.tenantId, "ListSchedules"],
        pageToken: request.pageToken,
        pageSize: request.pageSize || DEFAULT_PAGE,
        read: (after, limit) =>
          store.tenantDb(call.tenantId, (db) =>
            pageSchedules(db, call.tenantId, after, { limit, maxBytes: PAGE_BYTES }),
          ),
        keyOf: (row) => row.key,
        most: { bytes: PAGE_BYTES, sizeOf },
      });
      return { schedules: items.map((row) => toSchedule(row, known(row))), nextPageToken };
    },

    async updateSchedule(request, call) {
      const asked = request.schedule ?? create(ScheduleSchema);
      const paths = changedPaths(request.updateMask, asked);
      const before = await find(call, asked.key);
      if (request.revision !== 0 && request.revision !== before.revision) throw new Fault(ErrorReason.ETAG_MISMATCH);
      const wanted = applyMask(ScheduleSchema, toSchedule(before, []), asked, paths);
      const fields = deps.violations(ScheduleSchema, wanted);
      if (fields.length > 0) throw invalidRequest(fields.map((each) => ({ ...each, field: `schedule.${each.field}` })));
      const { warnings, reaches } = await checkRequest(wanted, call);
      const definition = definitionOf(wanted);
      const begin = paths.every((path) => path === "request") ? undefined : await beginning(definition, before);
      const row = await store.tenantDb(call.tenantId, async (db) => {
        const row = await lockSchedule(db, call.tenantId, asked.key);
        if (row === undefined) throw notFound("schedule");
        // What was merged and checked is no longer what is there.
        if (row.revision !== before.revision) throw new Fault(ErrorReason.ETAG_MISMATCH);
        const goesOn = row.state === State.ENDED && begin !== undefined;
        if (goesOn) await lockSchedules(db, call.tenantId);
        await audit(db, call, "schedule.update", row.key);
        const changed = await changeSchedule(db, row, { ...definition, ...(await begin?.(row)) }, clock());
        reaches(changed.firesAt);
        if (goesOn) await checkRoom(db, call);
        return changed;
      });
      return showWith(row, warnings);
    },

    pauseSchedule: ({ key }, call) =>
      stand(key, call, "schedule.pause", ({ state }) =>
        state === State.ACTIVE ? { state: State.PAUSED, occurrence: null, firesAt: null } : undefined,
      ),

    async resumeSchedule({ key }, call) {
      const before = await find(call, key);
      const paused = before.state === State.PAUSED;
      const begun = paused ? await takeSteps(standing(timingOf(before), clock(), before.lastOccurrence)) : undefined;
      return stand(key, call, "schedule.resume", (row) => {
        if (row.state !== State.PAUSED) return undefined;
        if (row.revision !== before.revision) throw new Fault(ErrorReason.ETAG_MISMATCH);
        return begun;
      });
    },

    async deleteSchedule({ key, cancelWaiting: cancels }, call) {
      const { tenantId, signal } = call;
      await store.tenantDb(tenantId, async (db) => {
        if (await removeSchedule(db, tenantId, key)) await audit(db, call, "schedule.delete", key);
      });
      if (!cancels) return { cancelled: 0 };
      const who = by(call);
      const tag = scheduleTag(key);
      await store.tenant(tenantId, (tx) => cancelFanoutsWith(tx, tenantId, tag, who.now));
      const told = (ended: Cancelled[]) => deps.cancelled(tenantId, ended, who.now);
      const all = { by: who, told, most: Number.POSITIVE_INFINITY, signal };
      return { cancelled: await cancelWaiting(store, tenantId, { ...EVERYTHING, tag }, all) };
    },

    async upsertDeadline(request, call) {
      const asked = request.deadline ?? create(DeadlineSchema);
      const { tenantId } = call;
      const { userId, key, priority, reminderOffsets, content } = asked;
      const who = by(call);
      const at = checkedTime("deadline.time", asked.time ?? timestampFromDate(new Date(Number.NaN)), who.now);
      const type = await deps.findType(tenantId, asked.type || DEFAULT_TYPE);
      const isWorded = content?.title === "" && type?.words?.wordsIn !== undefined;
      const language = isWorded ? (await deps.recipientsOf(tenantId, [userId])).get(userId)?.language : undefined;
      const reminder = { userId, key, type, content, priority, at, language: language ?? "" };
      const kind = within("deadline", () => remindersOf(tenantId, reminder, who.now));
      const offsetsMs = reminderOffsets === undefined ? null : offsetsOf(reminderOffsets);
      const wanted = { userId, key, type: asked.type || DEFAULT_TYPE, at, content: kind.content, priority, offsetsMs };
      const { row, cancelled, scheduled, shown } = await store.tenant(tenantId, async (tx) => {
        await kind.fence(tx);
        const reminds = { ...kind, offsetsMs: offsetsMs ?? (await offsetsFor(tx, tenantId, userId, type)) };
        const made = await upsertDeadline(tx, tenantId, wanted, reminds, newId, who);
        if (made.isNew) await checkDeadlines(tx, tenantId, userId, who.now);
        return made;
      });
      deps.cancelled(tenantId, cancelled, who.now);
      for (const each of scheduled) deps.scheduled(tenantId, each, who.now);
      for (const each of shown) deps.shownAnew(tenantId, each);
      return { deadline: toDeadline(row), warnings: kind.warnings };
    },

    async getDeadline({ userId, key }, call) {
      const row = await store.tenant(call.tenantId, (tx) => findDeadline(tx, call.tenantId, userId, key));
      if (row === undefined) throw notFound("deadline");
      return { deadline: toDeadline(row) };
    },

    async listDeadlines(request, call) {
      const { userId } = request;
      const { items, nextPageToken } = await keysetPage(pageTokens, {
        query: [call.tenantId, "ListDeadlines", userId],
        pageToken: request.pageToken,
        pageSize: request.pageSize || DEFAULT_PAGE,
        read: (after, limit) =>
          store.tenant(call.tenantId, (tx) =>
            pageDeadlines(tx, call.tenantId, userId, after, { limit, maxBytes: PAGE_BYTES }),
          ),
        keyOf: (row) => row.key,
        most: { bytes: PAGE_BYTES, sizeOf: ({ content }) => content.byteLength },
      });
      return { deadlines: items.map(toDeadline), nextPageToken };
    },

    async deleteDeadline(request, call) {
      const who = by(call);
      const cancelled = await store.tenant(call.tenantId, (tx) => deleteDeadline(tx, call.tenantId, request, who));
      deps.cancelled(call.tenantId, cancelled, who.now);
      return { cancelled: cancelled.length };
    },
  });
}

/** As they are now: a change of the user's will find what is stored by them. */
async function offsetsFor(tx: Tx, tenantId: string, userId: string, type: NotificationTypeRow | undefined) {
  const { key = DEFAULT_TYPE, category = DEFAULT_TYPE, reminderOffsetsMs = null } = type ?? {};
  const nothing = { tenant: undefined, profile: { language: "", timeZone: "" }, user: undefined };
  const levels = (await presentLevels(tx, tenantId, [userId])).get(userId) ?? nothing;
  return reminderOffsets(levels, { type: key, category }, reminderOffsetsMs).value;
}

function neverComes(): Fault {
  return invalidField("schedule.recurrence", "has no occurrence after now");
}

/** The masked fields of a schedule; without a mask, those that are set. */
function changedPaths(mask: Parameters<typeof maskPaths>[0], asked: Schedule): string[] {
  const given = clone(ScheduleSchema, asked);
  given.key = "";
  const paths = maskPaths(mask, ScheduleSchema, given);
  const unmasked = mask === undefined || mask.paths.length === 0;
  const known: readonly string[] = CHANGEABLE;
  const other = paths.find((path) => !known.includes(path));
  if (other !== undefined && !unmasked) {
    throw new Fault(ErrorReason.INVALID_FIELD_MASK, {
      message: `update_mask: "${other}" cannot be changed; use ${CHANGEABLE.join(", ")}`,
      fields: [{ field: "update_mask", description: `"${other}" cannot be changed` }],
    });
  }
  const found = paths.filter((path) => known.includes(path));
  if (found.length === 0) throw invalidField("update_mask", "names nothing to change, and nothing is set");
  return found;
}
