import { connect } from "nats";
import { expect, test } from "vitest";
import { Priority, Status } from "#gen/posthorn/v1/notification_pb.ts";
import { ingestStream, type LaneName, shardOf } from "#src/pipeline/flow.ts";
import { platformOfFile, startTestPlatform, type TestTenant } from "../support/platform.ts";
import { testServices } from "../support/services.ts";
import { until } from "../support/until.ts";

const services = await testServices();
const api = await platformOfFile({ services, roles: ["api"] });

const CALLS = 12;
const USERS = 1000;

/** Another tenant of the first one's shard. */
async function neighbour(): Promise<TestTenant> {
  for (;;) {
    const tenant = await api.newTenant();
    if (shardOf(tenant.tenantId) === shardOf(api.tenant.tenantId)) return tenant;
  }
}

test.each([
  { lane: "low", priority: Priority.LOW },
  { lane: "critical", priority: Priority.CRITICAL },
] satisfies { lane: LaneName; priority: Priority }[])(
  "a flood on $lane waits aside: who sends one after it on the same shard does not wait for it",
  async ({ lane, priority }) => {
    await using nats = await connected();
    const queued = async () => (await nats.manager.streams.info(ingestStream(services.namespace, lane))).state.messages;
    const other = await neighbour();
    const content = { title: "Hi" };
    const userIds = Array.from({ length: USERS }, (_, n) => `user-${n}`);
    for (let n = 0; n < CALLS; n++) await api.key.send.send({ to: { userIds }, content, priority });
    await until(queued, (messages) => messages === (CALLS * USERS) / 250);
    const { results } = await api.clients(other.apiKey).send.send({ to: { userIds: ["one"] }, content, priority });
    await until(queued, (messages) => messages === (CALLS * USERS) / 250 + 1);

    let flooded = 0;
    const before = Promise.withResolvers<number>();
    await using _ = await startTestPlatform({
      services,
      tenant: api.tenant,
      roles: ["worker"],
      between: {
        work: (handle) => async (work, delivery) => {
          await handle(work, delivery);
          if (work.tenantId === other.tenantId) before.resolve(flooded);
          else if ("ids" in work) flooded += work.ids.length;
        },
      },
    });
    // What the flooding tenant's share let through is in front of it, and beside that as much of the rest.
    expect(await before.promise).toBeLessThan((CALLS * USERS) / 2);
    const [result] = results;
    const { notification } = await api.clients(other.apiKey).send.getNotification({ id: result?.notificationId ?? "" });
    expect(notification?.status).toBe(Status.DELIVERED);
    // None of it is lost there.
    await until(queued, (messages) => messages === 0);
  },
);

async function connected() {
  const nats = await connect({ servers: services.natsUrl });
  return { manager: await nats.jetstreamManager(), [Symbol.asyncDispose]: () => nats.close() };
}
