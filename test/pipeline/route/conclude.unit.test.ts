import { fromBinary } from "@bufbuild/protobuf";
import { timestampDate } from "@bufbuild/protobuf/wkt";
import { describe, expect, test } from "vitest";
import { Channel, Reason, Status, TimelineEntrySchema, VerdictKind } from "#gen/posthorn/v1/notification_pb.ts";
import type { Reservation } from "#src/limits/notification-limits.ts";
import { conclude } from "#src/pipeline/route/conclude.ts";
import type { ChannelVerdict } from "#src/pipeline/route/gates/decide.ts";

const OTHER = 2 as Channel;
const at = (minute: number) => new Date(Date.UTC(2026, 0, 1, 0, minute));
const deliver = (channel: Channel = Channel.IN_APP): ChannelVerdict => ({ channel, kind: "deliver" });
const hold = (minute: number, channel: Channel = Channel.IN_APP): ChannelVerdict => ({
  channel,
  kind: "hold",
  reason: Reason.QUIET_HOURS,
  until: at(minute),
});
const suppress = (reason: Reason, channel: Channel = Channel.IN_APP): ChannelVerdict => ({
  channel,
  kind: "suppress",
  reason,
});
const limited: Reservation = {
  allowed: false,
  reason: Reason.USER_HOUR_LIMIT,
  until: at(20),
  usage: 10,
  limit: 10,
  slot: true,
  resetAt: at(60),
};
const detail = (bytes: Uint8Array | undefined) => bytes && fromBinary(TimelineEntrySchema, bytes);

describe("a channel delivers", () => {
  test.each([
    ["no limit was asked", undefined],
    ["the limits allow it", { allowed: true } as const],
  ])("%s: DELIVERED, without a detail that says what the status says", (_, reservation) => {
    expect(conclude("n", [deliver()], reservation, null)).toEqual({
      id: "n",
      status: Status.DELIVERED,
      reason: Reason.UNSPECIFIED,
      dueAt: undefined,
      detail: undefined,
    });
  });
  test("beside one that does not: DELIVERED, with the verdict of each", () => {
    const conclusion = conclude("n", [suppress(Reason.CHANNEL_DISABLED, OTHER), deliver()], { allowed: true }, null);
    expect(conclusion.status).toBe(Status.DELIVERED);
    expect(detail(conclusion.detail)?.verdicts).toMatchObject([
      { channel: OTHER, kind: VerdictKind.SUPPRESS, reason: Reason.CHANNEL_DISABLED },
      { channel: Channel.IN_APP, kind: VerdictKind.DELIVER, reason: Reason.UNSPECIFIED },
    ]);
  });
  test("the limits do not allow it: HELD until they do, with how the limit stood", () => {
    const conclusion = conclude("n", [deliver()], limited, null);
    expect(conclusion).toMatchObject({ status: Status.HELD, reason: Reason.USER_HOUR_LIMIT, dueAt: at(20) });
    const { verdicts, rateLimit } = detail(conclusion.detail) ?? {};
    expect(verdicts).toMatchObject([{ kind: VerdictKind.HOLD, reason: Reason.USER_HOUR_LIMIT }]);
    expect(verdicts?.[0]?.until && timestampDate(verdicts[0].until)).toEqual(at(20));
    expect(rateLimit).toMatchObject({ window: Reason.USER_HOUR_LIMIT, usage: 10, limit: 10 });
    expect(rateLimit?.resetTime && timestampDate(rateLimit.resetTime)).toEqual(at(60));
  });
  test("a limit that outlasts its worth: EXPIRED at once, at the very instant too", () => {
    for (const expires of [at(19), at(20)])
      expect(conclude("n", [deliver()], limited, expires)).toMatchObject({
        status: Status.EXPIRED,
        reason: Reason.USER_HOUR_LIMIT,
        dueAt: undefined,
      });
    expect(conclude("n", [deliver()], limited, at(21)).status).toBe(Status.HELD);
  });
});

describe("no channel delivers", () => {
  test("one holds: HELD until the first hold ends", () => {
    const conclusion = conclude("n", [hold(30), hold(10, OTHER), suppress(Reason.CHANNEL_DISABLED)], undefined, null);
    expect(conclusion).toMatchObject({ status: Status.HELD, reason: Reason.QUIET_HOURS, dueAt: at(10) });
    expect(detail(conclusion.detail)?.verdicts).toHaveLength(3);
  });
  test("a hold that outlasts its worth: EXPIRED", () => {
    expect(conclude("n", [hold(30)], undefined, at(30))).toMatchObject({ status: Status.EXPIRED, dueAt: undefined });
  });
  test("all suppress: SUPPRESSED for the first reason", () => {
    const conclusion = conclude(
      "n",
      [suppress(Reason.TYPE_DISABLED), suppress(Reason.CHANNEL_DISABLED, OTHER)],
      undefined,
      null,
    );
    expect(conclusion).toMatchObject({ status: Status.SUPPRESSED, reason: Reason.TYPE_DISABLED, dueAt: undefined });
  });
  test("it has expired: EXPIRED, not SUPPRESSED", () => {
    expect(conclude("n", [suppress(Reason.EXPIRED)], undefined, at(0))).toMatchObject({
      status: Status.EXPIRED,
      reason: Reason.EXPIRED,
    });
  });
  test("there is none: SUPPRESSED for want of a channel", () => {
    expect(conclude("n", [], undefined, null)).toMatchObject({ status: Status.SUPPRESSED, reason: Reason.NO_CHANNEL });
  });
});
