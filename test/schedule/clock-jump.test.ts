import { timestampFromDate } from "@bufbuild/protobuf/wkt";
import { expect, test } from "vitest";
import { Status } from "#gen/posthorn/v1/notification_pb.ts";
import { batching, HOUR, steppedClock } from "../batches/setup.ts";
import { platformOfFile, platformOfTest } from "../support/platform.ts";
import { refusalOf } from "../support/refusal.ts";
import { testServices } from "../support/services.ts";

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
