import { create, fromBinary } from "@bufbuild/protobuf";
import { timestampFromDate } from "@bufbuild/protobuf/wkt";
import { type ExplainedEntry, ExplainedEntrySchema } from "#gen/posthorn/v1/explain_pb.ts";
import { Channel, ContentSchema, Reason, Status, TimelineEntrySchema } from "#gen/posthorn/v1/notification_pb.ts";
import type { PreviewedBatch, PreviewSendResponse, SendRequest } from "#gen/posthorn/v1/send_service_pb.ts";
import { joiningOne } from "#src/batches/joining.ts";
import { findOpenBatch } from "#src/batches/queries.ts";
import { BatchRole } from "#src/batches/role.ts";
import { within } from "#src/errors.ts";
import { newIds } from "#src/ids.ts";
import { readLooks } from "#src/learning/queries.ts";
import type { lookingAtLimits } from "#src/limits/notification-limits.ts";
import { explainedEntry } from "#src/notifications/explain.ts";
import type { RulesThen } from "#src/notifications/rules-then.ts";
import { type CompiledPreferences, compile } from "#src/preferences/compile.ts";
import { readLevels } from "#src/preferences/queries.ts";
import { rulesPassed } from "#src/preferences/rules-passed.ts";
import type { ZoneClock } from "#src/preferences/zone-clock.ts";
import type { Store } from "#src/store/store.ts";
import type { FilterEvaluator } from "#src/subscriptions/evaluate.ts";
import { wishesOf } from "#src/subscriptions/rules.ts";
import type { Contracts } from "#src/types/payload/contracts.ts";
import { findType } from "#src/types/queries.ts";
import { rulesOf } from "#src/types/type.ts";
import { DEFAULT_TYPE } from "./accept/accept.ts";
import { findDuplicate } from "./accept/duplicate.ts";
import { type Draft, prepare } from "./accept/prepare.ts";
import { type HeldBackDeps, heldBack } from "./held-back.ts";
import { batchOutlook, unanswered } from "./outlook.ts";
import { askingChannel } from "./route/ask-channel.ts";
import { concludeBatched } from "./route/conclude.ts";
import type { Conclusion } from "./route/conclusion.ts";
import { decideChunk, type Known } from "./route/decide-chunk.ts";
import type { DecideDeps } from "./route/decide-in-slices.ts";
import { atOnce } from "./route/lead.ts";
import type { Waiting } from "./route/load.ts";
import { goodHoursOf } from "./route/when-they-look.ts";

export type PreviewDeps = Pick<DecideDeps, "decide"> &
  HeldBackDeps & {
    store: Store;
    clockOf(zone: string): ZoneClock;
    filters: FilterEvaluator;
    /** What the limits would say; they count nothing. */
    look: ReturnType<typeof lookingAtLimits>;
    /** A type with its payload contract. */
    typed: Contracts["with"];
    /** How long a dedup key counts when the Send does not say. */
    dedupWindowMs: number;
  };

/** Throws what Send would refuse the request with. */
export type Preview = (tenantId: string, request: SendRequest, at: Date) => Promise<Answer>;
type Answer = Omit<PreviewSendResponse, "$typeName" | "$unknown">;
type Foreseen = Omit<Answer, "timeZone" | "duplicateOf" | "warnings" | "content">;

/** What is held, and held again, is followed so far. */
const DECISIONS = 10;

/**
 * Says what would become of a Send to one user: accepts and decides it by the functions that do so for what is sent, with
 * what is stored now, and stores nothing. Where these would write, it reads: the limits, the open batch, dedup keys. All of
 * it but the limits comes from Postgres, so that no cache changes but that of payload contracts, whose versions never do.
 * What follows the decision is in outlook.ts and held-back.ts.
 */
export function previewing(deps: PreviewDeps): Preview {
  const { store } = deps;
  return async (tenantId, request, at) => {
    const userId = request.to?.userIds[0] ?? "";
    const key = request.type || DEFAULT_TYPE;
    const { stored, levels, subscriptions, revisions, optIn } = await store.tenantDb(tenantId, async (db) => ({
      stored: await findType(db, tenantId, key),
      ...(await readLevels(db, tenantId, [userId])),
    }));
    const type = stored && (await deps.typed(stored));
    const draft = within("request", () => prepare(request, type, at, deps.dedupWindowMs));
    const own = compile(levels(userId), optIn, deps.clockOf, {
      revisions: revisions(userId),
      wishes: wishesOf(subscriptions(userId), deps.filters),
    });
    const { timeZone } = own;
    const { warnings } = draft;
    const dedupKey = draft.dedup?.key;
    const duplicateOf =
      dedupKey === undefined
        ? undefined
        : await store.tenant(tenantId, (tx) => findDuplicate(tx, tenantId, { userId, key: dedupKey }, at));
    const encoded = draft.contentIn?.(own.language) ?? draft.content;
    const content = fromBinary(ContentSchema, encoded);
    if (duplicateOf !== undefined) return { timeZone, duplicateOf, warnings, content, ...NOTHING };
    const known: Omit<Known, "good"> = {
      preferences: new Map([[userId, own]]),
      types: new Map(type === undefined ? [] : [[key, { rules: rulesOf(type), revision: type.revision }]]),
    };
    const row = waitingOf(newIds(() => at)(), userId, { ...draft, content: encoded }, timeZone);
    const sources = { levels: levels(userId), type: type && { rules: rulesOf(type), optIn: type.optIn } };
    const rulesNow = () => rulesPassed(sources, row, deps.clockOf(timeZone));
    const following = await foreseen(deps, tenantId, { row, own, known, rulesNow }, at);
    return { timeZone, duplicateOf: "", warnings, content, ...following };
  };
}

/** What is left to say of one that is not sent at all. */
const NOTHING: Foreseen = { timeline: [], limitsUnknown: false, handOvers: [], ifUnanswered: [] };

/** One that would be stored, and what it is decided by. */
type Subject = { row: Waiting; own: CompiledPreferences; known: Omit<Known, "good">; rulesNow: RulesThen };

/** What its timeline would hold, and what follows. */
async function foreseen(deps: PreviewDeps, tenantId: string, subject: Subject, at: Date): Promise<Foreseen> {
  const timeline = [told(at, Status.ACCEPTED)];
  let { row } = subject;
  let now = at;
  if (row.scheduledAt !== null) {
    now = row.scheduledAt;
    timeline.push(told(at, Status.SCHEDULED, Reason.SCHEDULED), told(now, Status.ACCEPTED));
  }
  let limitsUnknown = false;
  for (let n = 1; ; n++) {
    const { conclusion, batch, limitsKnown } = await decideOne(deps, tenantId, { ...subject, row }, now);
    limitsUnknown ||= !limitsKnown;
    timeline.push(explainedAt(row, conclusion, subject.rulesNow, now));
    const { status, dueAt, reason, bookedAt = null } = conclusion;
    // Whether Redis has come back by then, nobody knows.
    const over = status !== Status.HELD || dueAt === undefined || reason === Reason.LIMITER_UNAVAILABLE;
    if (over || n === DECISIONS) {
      const ifUnanswered = unanswered(askingChannel(deps.decide), row, conclusion, subject.own, now);
      const { entries, handOvers, ended, ...held } = await heldBack(
        deps,
        tenantId,
        { ...subject, row },
        conclusion,
        now,
      );
      timeline.push(...entries, ...(ended === undefined ? [] : [told(now, Status.EXPIRED, ended)]));
      limitsUnknown ||= !held.limitsKnown;
      return { timeline, limitsUnknown, handOvers, ifUnanswered, ...(batch && { batch }) };
    }
    row = { ...row, attempts: row.attempts + 1, bookedAt, reason };
    now = dueAt;
    timeline.push(told(now, Status.ACCEPTED));
  }
}

type DecidedOne = { conclusion: Conclusion; batch?: PreviewedBatch; limitsKnown: boolean };

async function decideOne(
  { store, decide, look }: PreviewDeps,
  tenantId: string,
  { row, own, known }: Subject,
  now: Date,
): Promise<DecidedOne> {
  const good = await goodHoursOf(
    [row],
    { preferences: () => own, rules: (type) => known.types.get(type)?.rules },
    (userIds) => store.tenant(tenantId, (tx) => readLooks(tx, tenantId, userIds)),
    now,
  );
  const openBatch = async (key: string) => {
    const open = await store.tenant(tenantId, (tx) => findOpenBatch(tx, tenantId, row.userId, key));
    // By then it will have closed.
    return open !== undefined && open.flushAt > now ? open : undefined;
  };
  let limitsKnown = true;
  const { verdicts, reservations, conclusions } = await decideChunk(
    {
      decide,
      metrics: UNCOUNTED,
      async lead(all) {
        const plan = all[0]?.find((verdict) => verdict.kind === "batch")?.plan;
        if (!plan?.leading || (await openBatch(plan.key)) !== undefined) return { verdicts: all, leaders: NOBODY };
        return { verdicts: all.map(atOnce), leaders: new Set([row.id]) };
      },
      // There is nobody else to follow it.
      follow: async ({ led, reservations }) => ({ verdicts: led.verdicts, reservations }),
      async reserve(requests) {
        const looked = await Promise.all(requests.map((each) => look(tenantId, each, now)));
        limitsKnown = looked.every(({ known }) => known);
        return looked.map(({ reservation }) => reservation);
      },
    },
    [row],
    { ...known, good },
    now,
  );
  const [conclusion] = conclusions;
  if (conclusion === undefined) throw new Error("one was asked about, and none was decided");
  const { plan } = conclusion;
  if (conclusion.status !== Status.BATCHED || plan === undefined) return { conclusion, limitsKnown };
  const joined = joiningOne(await openBatch(plan.key), plan, now);
  const batched = concludeBatched(conclusion, verdicts[0] ?? [], reservations[0], joined);
  return { conclusion: batched, batch: batchOutlook(row, own, joined), limitsKnown };
}

const NOBODY: ReadonlySet<string> = new Set();

/** A filter that fails is counted where it is asked in earnest. */
const UNCOUNTED = { filterFailures: { inc: () => undefined } } as unknown as DecideDeps["metrics"];

/** The row that would be stored, as it would be read for its decision. */
function waitingOf(id: string, userId: string, draft: Draft, zone: string): Waiting {
  const { scheduledAt = null, expiresAt = null } = draft.times(zone);
  const { type, category, priority, channels, content, tags, bypassLimits } = draft;
  return {
    ...{ id, userId, type, category, priority, channels, content, tags, bypassLimits, scheduledAt, expiresAt },
    attempts: 0,
    senderId: draft.senderId ?? null,
    bookedAt: null,
    reason: 0,
    batchRole: draft.byItself ? BatchRole.ALONE : null,
    batchedAt: null,
    groupKey: draft.groupKey ?? null,
    escalation: draft.escalation ?? null,
    version: "0",
  };
}

function told(at: Date, status: Status, reason: Reason = Reason.UNSPECIFIED): ExplainedEntry {
  const entry = create(TimelineEntrySchema, { time: timestampFromDate(at), status, reason, actor: "posthorn" });
  return create(ExplainedEntrySchema, { entry });
}

/** As it would be read from the row that a decision writes. */
function explainedAt(
  row: Waiting,
  { status, reason, detail = null }: Pick<Conclusion, "status" | "reason"> & { detail?: Uint8Array | null | undefined },
  rulesNow: RulesThen,
  at: Date,
): ExplainedEntry {
  const channel = status === Status.DELIVERED ? Channel.IN_APP : Channel.UNSPECIFIED;
  return explainedEntry(row, { at, status, channel, reason, actor: null, detail }, rulesNow);
}
