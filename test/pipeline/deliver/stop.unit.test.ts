import { expect, test } from "vitest";
import { Channel, Priority, Reason, Status } from "#gen/posthorn/v1/notification_pb.ts";
import { NO_LIMITS } from "#src/limits/channel-day.ts";
import type { Claimed } from "#src/pipeline/deliver/claim.ts";
import { stopOf } from "#src/pipeline/deliver/hand-over.ts";
import type { Stored } from "#src/pipeline/deliver/load.ts";
import { askingFor } from "#src/pipeline/deliver/within-limits.ts";
import { compile } from "#src/preferences/compile.ts";
import { zoneClock } from "#src/preferences/zone-clock.ts";

// What stops a hand-over before its channel is asked: what is final first, and the limits last.

const now = new Date("2026-12-01T10:20:00Z");
const levels = { tenant: undefined, profile: { language: "", timeZone: "UTC" }, user: undefined };
const preferences = compile(levels, new Set(), () => zoneClock("UTC"));
const CLAIMED: Claimed = {
  ...{ tenantId: "t", notificationId: "n", userId: "u", step: 0, channel: Channel.SMS, attempts: 1, dueAt: now },
  ...{ heldBy: Reason.UNSPECIFIED, trace: null, atMostOnce: false, inDoubt: false, cancelledBy: null },
};
const STORED: Stored = {
  ...{ id: "n", type: "t", category: "c", priority: Priority.NORMAL, channels: 1 << Channel.SMS },
  ...{ status: Status.PROCESSING, bypassLimits: false, expiresAt: null, senderId: null, collected: false },
  ...{ content: new Uint8Array(), goesOn: false },
};

type Verdict = { kind: "suppress"; reason: Reason } | { kind: "hold"; reason: Reason; until: Date };
const refused: Verdict = { kind: "suppress", reason: Reason.EMERGENCY_ONLY };
const quiet: Verdict = { kind: "hold", reason: Reason.QUIET_HOURS, until: new Date(now.getTime() + 3_600_000) };
const stop = (claimed: Partial<Claimed>, stored: Partial<Stored>, verdict?: Verdict, has = true) =>
  stopOf(
    { channels: new Map(has ? [[Channel.SMS, { deliver: never }]] : []), askChannel: () => verdict },
    { ...CLAIMED, ...claimed },
    { ...STORED, ...stored },
    preferences,
    now,
  );
const never = () => Promise.reject(new Error("asked"));

test("the first of these that objects counts", () => {
  const doubtful = { atMostOnce: true, inDoubt: true };
  const over = { expiresAt: now };
  const inVain = { channels: 1 << Channel.IN_APP };
  const waited = { heldBy: Reason.CHANNEL_DAY_LIMIT };
  expect(stop(doubtful, { ...over, status: Status.CANCELLED }, refused)).toMatchObject({ kind: "drop" });
  expect(stop(doubtful, over, refused, false)).toMatchObject({ kind: "unknown" });
  expect(stop({ ...doubtful, atMostOnce: false }, over, refused, false)).toMatchObject({ kind: "expired" });
  const cancelled = { cancelledBy: "key:k" };
  expect(stop({ ...cancelled, inDoubt: true }, {}, refused, false)).toMatchObject({ kind: "unknown" });
  expect(stop(cancelled, { status: Status.CANCELLED }, refused, false)).toMatchObject({ kind: "cancelled" });
  expect(stop({}, {}, refused, false)).toMatchObject({ kind: "failed", outcome: "unavailable" });
  expect(stop({}, inVain, refused)).toMatchObject({ kind: "unwanted", reason: Reason.EMERGENCY_ONLY });
  expect(stop(waited, inVain, quiet)).toMatchObject({ kind: "unwanted", reason: Reason.CHANNEL_DISABLED });
  expect(stop(waited, {}, quiet)).toMatchObject({ kind: "held", hold: { reason: Reason.QUIET_HOURS } });
  expect(stop(waited, { expiresAt: quiet.until }, quiet)).toMatchObject({ kind: "expired", reason: quiet.reason });
  expect(stop({}, {}, quiet)).toBeUndefined();
});

test("no limit holds what the channel may have taken: it is counted, once", () => {
  const perDay = { ...NO_LIMITS, sms: 1 };
  const asked = (inDoubt: boolean) =>
    askingFor({ claimed: { ...CLAIMED, inDoubt }, stored: STORED, preferences }, perDay, now);
  expect([asked(false)?.exempt, asked(true)?.exempt]).toEqual([false, true]);
  expect(asked(true)?.tag).toBe(asked(false)?.tag);
});
