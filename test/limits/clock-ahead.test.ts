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
/** By a clock of its own; Redis's is right. */
const worker = (at = clock) =>
  startTestPlatform({ ...node, clock: at, between: { redisClock: clock }, roles: ["worker"], tenant: a.tenant });
const { newType, newUser, send } = batching(a);

test("a worker whose clock is a day ahead begins no window of its users anew, and leaves them their limits and their cap", async () => {
  const users = [newUser(), newUser()];
  const type = await newType(undefined);
  // What is over is held, or goes into a digest.
  const sends = async (user: string, count: number) => {
    const results = [];
    for (let n = 0; n < count; n++) results.push((await send(user, type, `${n}`)).status);
    return results.filter((status) => status === Status.DELIVERED).length;
  };
  for (const user of users) {
    {
      await using _ = await worker();
      expect(await sends(user, 4)).toBe(4);
    }
    // Five in ten seconds, whoever asks.
    await using _ = await worker(() => new Date(nowMs + 24 * HOUR));
    expect(await sends(user, 3)).toBe(1);
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
