import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { Channel } from "#gen/posthorn/v1/notification_pb.ts";
import { PreferencesService } from "#gen/posthorn/v1/preferences_service_pb.ts";
import { ScheduleService } from "#gen/posthorn/v1/schedule_service_pb.ts";
import { SendService } from "#gen/posthorn/v1/send_service_pb.ts";
import { TopicService } from "#gen/posthorn/v1/topic_service_pb.ts";
import { BatchRule_Mode, DeliveryMode, TypeService } from "#gen/posthorn/v1/type_service_pb.ts";
import type { Queue } from "#src/pipeline/queue.ts";
import { openStore, type Store } from "#src/store/store.ts";
import { freshServices } from "../../support/services.ts";
import { labChannels, labFolder } from "./channels.ts";
import { connectTo } from "./connection.ts";
import { FAILPOINTS, failpoints, NAMED, type Transaction } from "./failpoints.ts";
import { nodeHere } from "./here.ts";

test("a node under a little traffic comes to every failpoint", async () => {
  const missed = new Set<string>(FAILPOINTS);
  await using services = await freshServices();
  await using lab = await labFolder();
  const between = failpoints((point) => missed.delete(point), labChannels(lab.folder));
  let losing = false;
  const losesSome = (queue: Queue): Queue => ({
    ...queue,
    enqueue: async (...args) => (losing ? undefined : queue.enqueue(...args)),
  });
  let aheadMs = 0;
  await using node = await nodeHere("watched", services, {
    between: { ...between, queue: (queue) => between.queue?.(losesSome(queue)) ?? queue },
    clock: () => new Date(Date.now() + aheadMs),
  });
  const { apiKey } = await node.bootstrap();
  using client = connectTo(node.address, apiKey);
  const to = { userIds: ["ada"] };
  const content = { title: "Hello" };
  const window = { seconds: 1n };
  for (const [key, mode] of [
    ["trailing", BatchRule_Mode.TRAILING],
    ["leading", BatchRule_Mode.LEADING],
  ] as const)
    await client.call(TypeService.method.createType, { type: { key, batching: { batchable: true, window, mode } } });
  const once = { key: "once", defaultChannels: [Channel.EMAIL], deliveryMode: DeliveryMode.AT_MOST_ONCE };
  await client.call(TypeService.method.createType, { type: once });
  await client.call(TopicService.method.upsertTopic, { topic: { key: "news" } });
  await client.call(TopicService.method.addMembers, { key: "news", userIds: ["ada"] });
  const localStartTime = new Date(Date.now() + 3000).toISOString().slice(0, 19);
  const recurrence = "FREQ=HOURLY";
  const schedule = { key: "hourly", request: { to, content }, recurrence, localStartTime, timeZone: "UTC" };
  await client.call(ScheduleService.method.createSchedule, { schedule });
  for (const more of [
    {},
    { to: { topics: ["news"] } },
    { type: "trailing" },
    { type: "leading" },
    { type: "once" },
    { schedule: { case: "scheduleTime" as const, value: { seconds: BigInt(Math.ceil(Date.now() / 1000) + 1) } } },
  ])
    await client.call(SendService.method.send, { to, content, ...more });
  const step = { channel: Channel.EMAIL, after: { seconds: 10n } };
  const escalation = { steps: [step], confirmationRequired: true };
  const waitForDecision = { seconds: 10n };
  const escalating = async () =>
    (await client.call(SendService.method.send, { to, content, escalation, waitForDecision })).results[0];
  await escalating();
  const { notificationId: id = "" } = (await escalating()) ?? {};
  await client.call(SendService.method.confirmNotification, { id, reason: "a test" });
  // Of all users: that is what the scheduler decides anew.
  const preferences = { batching: { maxSize: 7 } };
  await client.call(PreferencesService.method.updateDefaultPreferences, { preferences, reason: "a test" });
  // Else there is nothing to reconcile.
  losing = true;
  await client.call(SendService.method.send, { to, content });
  losing = false;
  // What waits for its time has it now: the shortest that an escalation may wait, and the others.
  aheadMs = 12_000;
  await expect.poll(() => [...missed], { timeout: 45_000 }).toEqual([]);
});

test("the point before a commit is before one that is sent along with the last statements", async () => {
  await using services = await freshServices();
  await using store = openStore({
    url: services.databaseUrl,
    hotPoolSize: 1,
    poolSize: 1,
    statementTimeoutMs: 10_000,
    lockTimeoutMs: 10_000,
    prepare: true,
  });
  const passed: string[] = [];
  const sent: Store = {
    ...store,
    tenant: (of, work) =>
      store.tenant(of, (tx, last) =>
        work(tx, () => {
          queueMicrotask(() => process.nextTick(() => passed.push("COMMIT")));
          last();
        }),
      ),
    [Symbol.asyncDispose]: () => store[Symbol.asyncDispose](),
  };
  const watched = failpoints((point) => passed.push(point)).store?.(sent);
  await watched?.tenant("01890000-0000-7000-8000-00000000000c", async (tx, last) => {
    last();
    await tx`update users set display_name = '' where id = 'nobody'`;
  });
  expect(passed).toEqual(["other:before-write", "other:before-commit", "COMMIT", "other:after-commit"]);
});

/**
 * Where stages and jobs begin transactions, in the order in which they do, and what these are. A new one fails here until it
 * has a name, and with it points of its own; "other" ones have the points of all that write.
 *
 * Calls are not here: each is one transaction that its caller repeats, and has the points of "other" at least.
 */
const BEGUN: Record<string, readonly (Transaction | "reads")[]> = {
  "pipeline/accept/accept.ts": ["accept"],
  "pipeline/accept/answered.ts": ["reads"],
  "pipeline/accept/fanout.ts": ["reads", "fanout"],
  // A call's, because it shares its checks with Send.
  "pipeline/accept/update.ts": ["reads", "other"],
  // A batch that cannot be closed is dissolved by an "other".
  "pipeline/close/close.ts": ["reads", "other", "close", "reads"],
  "pipeline/deliver/deliver.ts": ["claim", "reads"],
  "pipeline/deliver/hand-over.ts": ["give"],
  "pipeline/deliver/note.ts": ["note"],
  "pipeline/escalate/escalate.ts": ["reads", "escalate"],
  "pipeline/preview.ts": ["reads", "reads", "reads", "reads"],
  "pipeline/reconcile/reconcile.ts": ["reconcile", "other"],
  // One that fails is put behind the others, and the fence of all is raised: by no statement that writes.
  "pipeline/reconsider/reconsider.ts": ["reads", "other", "reads", "reconsider"],
  // A batch that a refused leader has opened is taken back by an "other".
  "pipeline/route/lead.ts": ["lead", "other"],
  "pipeline/route/route.ts": ["reads", "reads", "decide"],
  // One that can never be decided is ended.
  "pipeline/worker.ts": ["decide"],
  "schedule/forget.ts": ["other", "other", "other", "other", "other", "other", "other"],
  "schedule/jobs.ts": ["other", "reads"],
  "schedule/measure-due.ts": ["reads"],
  "schedule/occurrences.ts": ["reads", "other", "other", "occurrence"],
  "schedule/release.ts": ["release"],
};

test("every transaction of a stage or a job has its failpoints", () => {
  const src = join(import.meta.dirname, "../../../src");
  const begun = ["pipeline", "schedule"].flatMap((room) =>
    readdirSync(join(src, room), { recursive: true, encoding: "utf8" })
      .filter((file) => file.endsWith(".ts"))
      .map((file) => join(room, file))
      .map((file) => [file, readFileSync(join(src, file), "utf8").match(BEGINS)?.length ?? 0] as const),
  );
  const found = Object.fromEntries(begun.filter(([, count]) => count > 0));
  expect(found).toEqual(Object.fromEntries(Object.entries(BEGUN).map(([file, names]) => [file, names.length])));
  // "join" is a decision whose transaction begins otherwise; a call confirms.
  const named = new Set<string>([...Object.values(BEGUN).flat(), "join", "confirm"]);
  expect(NAMED.filter((name) => !named.has(name))).toEqual([]);
});

const BEGINS = /\bstore\s*\.(tenant|tenantAtOnce|tenantDb|system|systemDb)\(/g;
