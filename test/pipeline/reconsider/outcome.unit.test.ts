import { create, type MessageInitShape } from "@bufbuild/protobuf";
import { describe, expect, test } from "vitest";
import { Priority, Reason, Status } from "#gen/posthorn/v1/notification_pb.ts";
import { Digest_Mode, PreferencesSchema } from "#gen/posthorn/v1/preferences_service_pb.ts";
import { DigestRule } from "#gen/posthorn/v1/type_service_pb.ts";
import { BatchRole } from "#src/batches/role.ts";
import { reconsidered, type WaitingRow } from "#src/pipeline/reconsider/outcome.ts";
import { decide } from "#src/pipeline/route/gates/decide.ts";
import { compile } from "#src/preferences/compile.ts";
import { zoneClock } from "#src/preferences/zone-clock.ts";
import type { TypeRules } from "#src/types/type.ts";

const at = (time: string) => new Date(`2026-01-07T${time}:00Z`);
const NOW = at("12:00");

const HELD: WaitingRow = {
  id: "019a0000-0000-7000-8000-000000000001",
  userId: "ann",
  type: "news",
  category: "marketing",
  priority: Priority.NORMAL,
  channels: 2,
  status: Status.HELD,
  reason: Reason.QUIET_HOURS,
  bypassLimits: false,
  senderId: undefined,
  dueAt: at("14:00"),
  scheduledAt: undefined,
  expiresAt: undefined,
  localTime: undefined,
  localTtlMs: undefined,
  ofSchedule: false,
  batchRole: undefined,
  batchedAt: undefined,
  batchKey: undefined,
  tags: [],
};
const SCHEDULED: WaitingRow = {
  ...HELD,
  status: Status.SCHEDULED,
  reason: 0,
  dueAt: at("15:00"),
  scheduledAt: at("15:00"),
};
/** Its batch has just been dissolved. */
const MEMBER: WaitingRow = {
  ...HELD,
  status: Status.BATCHED,
  reason: Reason.BATCHING,
  dueAt: NOW,
  batchRole: BatchRole.MEMBER,
  batchedAt: at("11:50"),
  batchKey: `b:news:${Priority.NORMAL}:1`,
};
const LOCAL: WaitingRow = { ...SCHEDULED, localTime: "2026-01-07T15:00" };

function outcomeOf(
  row: WaitingRow,
  user: MessageInitShape<typeof PreferencesSchema>,
  rules: TypeRules | undefined = PLAIN,
) {
  const levels = {
    tenant: undefined,
    profile: { language: "", timeZone: "" },
    user: create(PreferencesSchema, user),
  };
  return reconsidered(row, compile(levels, new Set(), zoneClock), rules, decide, NOW);
}
const PLAIN: TypeRules = { batching: undefined, digest: DigestRule.UNSPECIFIED, worth: 9 };
const BATCHED: TypeRules = {
  batching: { maxSize: 0, windowMs: undefined, leading: false, sliding: false, maxWindowMs: undefined },
  digest: DigestRule.UNSPECIFIED,
  worth: 9,
};
const quiet = (startTime: string, endTime: string) => ({ quietHours: { enabled: true, startTime, endTime } });
const moved = (status: Status, reason: Reason, dueAt: Date) => ({
  kind: "moved",
  conclusion: { status, reason, dueAt },
});
const UNCHANGED = { kind: "unchanged" };

describe("what a rule holds", () => {
  test("is due when nothing holds it any more", () => {
    expect(outcomeOf(HELD, {})).toMatchObject({ kind: "released" });
  });
  test("moves with the rule, or to another rule", () => {
    expect(outcomeOf(HELD, quiet("11:00", "16:00"))).toMatchObject(moved(Status.HELD, Reason.QUIET_HOURS, at("16:00")));
    const periods = [{ dayOfWeek: 3, startTime: "11:00", endTime: "14:00" }];
    expect(outcomeOf(HELD, { doNotDisturb: { enabled: true, periods } })).toMatchObject(
      moved(Status.HELD, Reason.DO_NOT_DISTURB, at("14:00")),
    );
  });
  test("waits as before when the rule says the same", () => {
    expect(outcomeOf(HELD, quiet("11:00", "14:00"))).toEqual(UNCHANGED);
  });
  test("ends when it is not wanted, its type is gone, or it would wait until it expires", () => {
    const ended = (row: WaitingRow, user: object, deleted = false) => {
      const levels = {
        tenant: undefined,
        profile: { language: "", timeZone: "" },
        user: create(PreferencesSchema, user),
      };
      const rules = deleted ? undefined : PLAIN;
      const outcome = reconsidered(row, compile(levels, new Set(), zoneClock), rules, decide, NOW);
      return outcome.kind === "suppressed" && [outcome.conclusion.status, outcome.conclusion.reason];
    };
    const off = { types: { news: { enabled: false } } };
    expect(ended(HELD, off)).toEqual([Status.SUPPRESSED, Reason.TYPE_DISABLED]);
    expect(ended(SCHEDULED, off)).toEqual([Status.SUPPRESSED, Reason.TYPE_DISABLED]);
    expect(ended(HELD, {}, true)).toEqual([Status.SUPPRESSED, Reason.TYPE_DELETED]);
    const expiring = { ...HELD, expiresAt: at("15:30") };
    expect(ended(expiring, quiet("11:00", "16:00"))).toEqual([Status.EXPIRED, Reason.QUIET_HOURS]);
  });
  test("is left to the release that is due already, unless it ends", () => {
    const due = { ...HELD, dueAt: NOW };
    expect(outcomeOf(due, {})).toEqual(UNCHANGED);
    expect(outcomeOf(due, quiet("11:00", "16:00"))).toEqual(UNCHANGED);
    expect(outcomeOf(due, { enabled: false }).kind).toBe("suppressed");
  });
});

describe("what a limit holds", () => {
  const limited = { ...HELD, reason: Reason.USER_HOUR_LIMIT };
  test("keeps its place when no rule holds it, or none for longer", () => {
    expect(outcomeOf(limited, {})).toEqual(UNCHANGED);
    expect(outcomeOf(limited, quiet("11:00", "13:00"))).toEqual(UNCHANGED);
  });
  test("moves to the end of a rule that holds it longer", () => {
    expect(outcomeOf(limited, quiet("11:00", "16:00"))).toMatchObject(
      moved(Status.HELD, Reason.QUIET_HOURS, at("16:00")),
    );
  });
});

describe("what waits for its time", () => {
  test("waits as before, whatever will hold it then", () => {
    expect(outcomeOf(SCHEDULED, quiet("11:00", "16:00"))).toEqual(UNCHANGED);
    expect(outcomeOf(SCHEDULED, { timeZone: "Asia/Tokyo" })).toEqual(UNCHANGED);
  });
  test("by the wall clock follows its user east and west", () => {
    expect(outcomeOf(LOCAL, { timeZone: "America/New_York" })).toMatchObject({
      ...moved(Status.SCHEDULED, Reason.SCHEDULED, at("20:00")),
      times: { scheduledAt: at("20:00"), expiresAt: undefined },
    });
    expect(outcomeOf(LOCAL, { timeZone: "Europe/Berlin" })).toMatchObject(
      moved(Status.SCHEDULED, Reason.SCHEDULED, at("14:00")),
    );
  });
  test("takes its ttl with it, and leaves an instant of expiry where it was", () => {
    const expiresAt = at("16:00");
    const ttl = outcomeOf({ ...LOCAL, expiresAt, localTtlMs: 3_600_000 }, { timeZone: "America/New_York" });
    expect(ttl).toMatchObject({ kind: "moved", times: { expiresAt: at("21:00") } });
    expect(outcomeOf({ ...LOCAL, expiresAt }, { timeZone: "America/New_York" })).toMatchObject({
      kind: "suppressed",
      conclusion: { status: Status.EXPIRED, reason: Reason.SCHEDULED },
    });
  });
  test("is due where its time is past, if nothing holds it there", () => {
    expect(outcomeOf(LOCAL, { timeZone: "Asia/Tokyo" })).toMatchObject({ kind: "released" });
    expect(outcomeOf(LOCAL, { timeZone: "Asia/Tokyo", ...quiet("20:00", "22:00") })).toMatchObject(
      moved(Status.HELD, Reason.QUIET_HOURS, at("13:00")),
    );
  });
  test("once it has come it does not come again", () => {
    const held = {
      ...LOCAL,
      status: Status.HELD,
      reason: Reason.QUIET_HOURS,
      scheduledAt: at("11:30"),
      dueAt: at("14:00"),
    };
    expect(outcomeOf(held, { timeZone: "America/New_York" })).toMatchObject({ kind: "released" });
  });
});

describe("what is in a batch", () => {
  test("is due when neither its type nor its user collects it any more", () => {
    expect(outcomeOf(MEMBER, {})).toMatchObject({ kind: "released" });
    expect(outcomeOf(MEMBER, { batching: { enabled: false } }, BATCHED)).toMatchObject({ kind: "released" });
  });
  test("goes into another when its own was dissolved, or is of another key", () => {
    expect(outcomeOf(MEMBER, {}, BATCHED)).toMatchObject({ kind: "rebatched" });
    const standing = { ...MEMBER, dueAt: undefined };
    expect(outcomeOf(standing, {}, BATCHED)).toEqual(UNCHANGED);
    expect(outcomeOf(standing, { digest: { mode: Digest_Mode.DAILY } }, BATCHED)).toMatchObject({ kind: "rebatched" });
  });
  test("is held by the clock from now on, or ends", () => {
    expect(outcomeOf(MEMBER, quiet("11:00", "14:00"), BATCHED)).toMatchObject(
      moved(Status.HELD, Reason.QUIET_HOURS, at("14:00")),
    );
    expect(outcomeOf(MEMBER, { enabled: false }, BATCHED)).toMatchObject({ kind: "suppressed" });
  });
  test("is joined by what was held and is to be collected now, but not by what has been through one", () => {
    const digest = { digest: { mode: Digest_Mode.DAILY } };
    expect(outcomeOf(HELD, digest)).toMatchObject({ kind: "rebatched" });
    expect(outcomeOf({ ...HELD, batchRole: BatchRole.ALONE }, digest)).toMatchObject({ kind: "released" });
    const whole = { ...HELD, batchRole: BatchRole.WHOLE, type: "digest" };
    expect(outcomeOf(whole, digest)).toMatchObject({ kind: "released" });
  });
});
