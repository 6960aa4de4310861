import postgres from "postgres";
import { afterAll, expect, test } from "vitest";
import { Channel, Status } from "#gen/posthorn/v1/notification_pb.ts";
import { handedOver, labFolder } from "../fault/lab/channels.ts";
import { faultNode } from "../fault/lab/node.ts";
import { platformOfFile } from "../support/platform.ts";
import { testServices } from "../support/services.ts";
import { until } from "../support/until.ts";
import { escalating, sinkFolder } from "./setup.ts";

// A process that has handed channels something is asked to stop, as by a deploy, while these do not answer.
const services = await testServices();
const sink = await sinkFolder();
const node = await platformOfFile({ services, env: sink.env, roles: ["api", "stream", "worker"] });
const { newUser, send, reached } = escalating(node);
const sql = postgres(services.databaseUrl, { max: 1, onnotice: () => undefined });
afterAll(() => sql.end());

/** As long as a deploy waits for a process. */
const GONE_WITHIN_MS = 15_000;
/** More than are handed over side by side: without a word to them they would take turns, each of ten seconds. */
const MANY = 40;

test("who hangs holds up no stop: what was given, and what waited, goes to another process with the same keys", async () => {
  await using lab = await labFolder();
  const settings = { POSTHORN_ROLES: "scheduler", LAB_CHANNELS: lab.folder };
  await using hanging = await faultNode("hanging", services, { ...settings, LAB_CHANNELS_HANG: "yes" });
  const ids = await Promise.all(
    Array.from({ length: MANY }, () => send(newUser(), { channels: [Channel.EMAIL], escalation: {} })),
  );
  await hanging.start();
  await until(
    () => handedOver(lab.folder),
    (given) => given.length > 0,
  );
  const { code, ms } = await hanging.stop();
  expect(code).toBe(0);
  expect(ms).toBeLessThan(GONE_WITHIN_MS);

  const cutOff = new Set((await handedOver(lab.folder)).map(({ idempotencyKey }) => idempotencyKey));
  const waiting = await sql<{ attempts: number; isDue: boolean }[]>`
    select attempts, due_at <= now() as "isDue" from hand_overs where tenant_id = ${node.tenant.tenantId}`;
  expect(waiting).toEqual(Array.from({ length: MANY }, () => ({ attempts: 0, isDue: true })));

  await using another = await faultNode("another", services, settings);
  await another.start();
  await Promise.all(ids.map((id) => reached(id, Status.DELIVERED)));
  const times = Map.groupBy(await handedOver(lab.folder), ({ idempotencyKey }) => idempotencyKey);
  const expected = ids.map((id) => `${id}:0:${Channel.EMAIL}`);
  expect([...times.keys()].toSorted()).toEqual(expected.toSorted());
  for (const [key, given] of times) expect(given).toHaveLength(cutOff.has(key) ? 2 : 1);
  expect(cutOff.size).toBeLessThan(MANY);
}, 120_000);
