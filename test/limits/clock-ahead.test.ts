import { expect, test } from "vitest";
import { Reason, Status } from "#gen/posthorn/v1/notification_pb.ts";
import { batching, HOUR } from "../batches/setup.ts";
import { platformOfFile, startTestPlatform } from "../support/platform.ts";
import { testServices } from "../support/services.ts";

// A node that decides nothing, and workers beside it: one whose clock is a day ahead, and then one whose clock is right.
let nowMs = Math.ceil(Date.now() / HOUR) * HOUR;
const clock = () => new Date(nowMs);
const env = { POSTHORN_USER_BURST: "5", POSTHORN_USER_MAX_PER_MINUTE: "10" };
const services = await testServices();
const node = { services, env, hourlyCap: true };
const a = await platformOfFile({ ...node, clock, roles: ["api", "scheduler"] });
const worker = (at = clock) => startTestPlatform({ ...node, clock: at, roles: ["worker"], tenant: a.tenant });
const { newType, newUser, send } = batching(a);

test("a worker whose clock was a day ahead leaves its users their limits and their cap", async () => {
  const users = [newUser(), newUser()];
  const type = await newType(undefined);
  {
    await using _ = await worker(() => new Date(nowMs + 24 * HOUR));
    for (const user of users)
      for (let n = 0; n < 3; n++) expect(await send(user, type, `${n}`)).toMatchObject({ status: Status.DELIVERED });
  }
  await using _ = await worker();
  for (const user of users) {
    nowMs += HOUR;
    for (let n = 0; n < 10; n++) {
      nowMs += 20_000;
      expect(await send(user, type, `${n}`)).toMatchObject({ status: Status.DELIVERED });
    }
    expect(await send(user, type, "over")).toMatchObject({ rateLimit: { window: Reason.HOURLY_CAP } });
  }
});
