import { expect, test } from "vitest";
import { Reason, Status } from "#gen/posthorn/v1/notification_pb.ts";
import { platformOfFile } from "../support/platform.ts";
import { testServices } from "../support/services.ts";
import { until } from "../support/until.ts";

const services = await testServices();
const a = await platformOfFile({ services });
const b = await platformOfFile({ services, tenant: a.tenant });
const onB = b.clients(a.tenant.apiKey);

const content = { title: "Hi" };
const waitForDecision = { seconds: 5n };
/** Promised is a second; the rest is for a machine that is busy with other tests. */
const STALE_MS = 5000;

test("a change of preferences races decisions: each is decided once, by the old or the new, and soon only by the new", async () => {
  const user = await a.clientsFor("racer");
  const send = async (clients: typeof onB) => {
    const { results } = await clients.send.send({ to: { userIds: ["racer"] }, content, waitForDecision });
    return results[0]?.status;
  };
  for (let round = 0; round < 5; round++) {
    for (const enabled of [false, true]) {
      const [, ...during] = await Promise.all([
        user.preferences.updatePreferences({ preferences: { types: { general: { enabled } } } }),
        ...Array.from({ length: 20 }, (_, n) => send(n % 2 === 0 ? a.key : onB)),
      ]);
      // That none of these is by the old after the change is committed: preferences-fence.test.ts.
      for (const status of during) expect([Status.DELIVERED, Status.SUPPRESSED]).toContain(status);

      const wanted = enabled ? Status.DELIVERED : Status.SUPPRESSED;
      await until(
        () => Promise.all([send(a.key), send(onB)]),
        (statuses) => statuses.every((status) => status === wanted),
        STALE_MS,
      );
      const after = await Promise.all(Array.from({ length: 10 }, (_, n) => send(n % 2 === 0 ? a.key : onB)));
      expect(new Set(after)).toEqual(new Set([wanted]));
    }
  }
  const { notifications } = await a.key.send.listNotifications({ filter: { userId: "racer" }, pageSize: 200 });
  for (const { status, reason } of notifications) {
    expect(reason).toBe(status === Status.SUPPRESSED ? Reason.TYPE_DISABLED : Reason.UNSPECIFIED);
  }
  const { counts } = await user.inbox.getCounts({});
  const { counters } = await a.key.analytics.queryCounters({
    startTime: { seconds: BigInt(Math.floor(Date.now() / 1000)) - 3600n },
    statuses: [Status.DELIVERED],
  });
  expect(counters[0]?.count).toBe(BigInt(counts?.total ?? 0));
});
