import { timestampFromDate } from "@bufbuild/protobuf/wkt";
import { expect, test } from "vitest";
import { Status } from "#gen/posthorn/v1/notification_pb.ts";
import { batching, HOUR, steppedClock } from "../batches/setup.ts";
import { platformOfFile, platformOfTest } from "../support/platform.ts";
import { refusalOf } from "../support/refusal.ts";
import { testServices } from "../support/services.ts";
import { until } from "../support/until.ts";

// Partitions are made for the months to come. Who was suspended for longer, or whose clock is set, comes to where there are none.
const YEAR = 366 * 24 * HOUR;

test("what cannot be stored in a month that has no partition yet is refused for now, not for good", async () => {
  const services = await testServices();
  const { clock, step } = steppedClock();
  // Nobody makes partitions here once it has started.
  const node = await platformOfFile({ services, clock, roles: ["api", "worker"] });
  const { newUser, prefer, send } = batching(node);
  const user = newUser();
  step(YEAR);
  for (const call of [() => prefer(user, { language: "de" }), () => send(user, "general", "Hi")])
    expect(await refusalOf(call())).toMatchObject({ reason: "DEPENDENCY_UNAVAILABLE" });
  await platformOfTest({ services, clock, roles: ["scheduler"], tenant: node.tenant });
  await prefer(user, { language: "de" });
  expect(await send(user, "general", "Hi")).toMatchObject({ status: Status.DELIVERED });
});

test("a node that stood still for a year goes on by itself", async () => {
  const { clock, step } = steppedClock();
  const node = await platformOfTest({ clock });
  const { newUser, prefer, send, reached } = batching(node);
  const user = newUser();
  const { results } = await node.key.send.send({
    ...{ to: { userIds: [user] }, content: { title: "Hi" } },
    schedule: { case: "scheduleTime", value: timestampFromDate(new Date(clock().getTime() + HOUR)) },
  });
  step(YEAR);
  // Its inbox entry is of a month that nobody had made.
  await reached(results[0]?.notificationId ?? "", Status.DELIVERED);
  await prefer(user, { language: "de" });
  expect(await send(user, "general", "Again")).toMatchObject({ status: Status.DELIVERED });
});

test("an occurrence that comes in a month that nobody had made is sent, and not missed", async () => {
  const { clock, step } = steppedClock();
  const node = await platformOfTest({ clock });
  const { newUser, entries } = batching(node);
  const user = newUser();
  await node.key.schedules.createSchedule({
    schedule: {
      key: "next-year",
      request: { to: { userIds: [user] }, content: { title: "Hi" } },
      recurrence: "FREQ=HOURLY",
      // Half an hour before the clock is there: nobody is too late for it.
      localStartTime: new Date(clock().getTime() + YEAR - HOUR / 2).toISOString().slice(0, 19),
      timeZone: "UTC",
    },
  });
  step(YEAR);
  await until(
    () => entries(user),
    (came) => came.length > 0,
  );
  const { schedule } = await node.key.schedules.getSchedule({ key: "next-year" });
  expect(schedule).toMatchObject({ firedCount: 1n });
});
