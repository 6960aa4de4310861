import type { DescMessage, MessageInitShape } from "@bufbuild/protobuf";
import { type Timestamp, timestampDate, timestampFromDate } from "@bufbuild/protobuf/wkt";
import postgres from "postgres";
import { afterAll, expect } from "vitest";
import { Dimension } from "#gen/posthorn/v1/analytics_service_pb.ts";
import { type Batch, BatchState } from "#gen/posthorn/v1/batch_service_pb.ts";
import {
  type Channel,
  ChannelSchema,
  type Notification,
  Status,
  StatusSchema,
} from "#gen/posthorn/v1/notification_pb.ts";
import type { PreferencesSchema, Reconciled } from "#gen/posthorn/v1/preferences_service_pb.ts";
import type { SendRequestSchema, SendResult } from "#gen/posthorn/v1/send_service_pb.ts";
import { Preset } from "#gen/posthorn/v1/type_service_pb.ts";
import { type Clients, platformOfFile, startTestPlatform, type TestPlatformOptions } from "../../support/platform.ts";
import { wrongInAppCounters, wrongInboxes } from "../../support/recount.ts";
import { testServices } from "../../support/services.ts";
import { until } from "../../support/until.ts";
import { wrongSuppressions } from "../../support/waiting.ts";

type Init<Desc extends DescMessage> = Exclude<MessageInitShape<Desc>, { $typeName: string }>;

/**
 * TaskMaster Pro: a tenant with the types of its preset on two nodes, and a clock that stands still until the story goes
 * on. All that a story does and sees goes through public RPCs, by turns on one node and the other.
 */
export async function taskmaster(from: string, options: Pick<TestPlatformOptions, "env" | "hourlyCap"> = {}) {
  const began = new Date(from);
  let now = began;
  const clock = () => now;
  const services = await testServices();
  const a = await platformOfFile({ services, clock, ...options });
  const second = await startTestPlatform({ services, clock, ...options, tenant: a.tenant });
  afterAll(() => second[Symbol.asyncDispose]());
  const nodes = [a.key, second.key] as const;
  let turn = 0;
  const key = (): Clients => nodes[turn++ % 2] as Clients;
  await key().types.loadPreset({ preset: Preset.TASKMASTER });

  const get = async (id: string): Promise<Notification> => {
    const { notification } = await key().send.getNotification({ id });
    if (notification === undefined) throw new Error("no notification");
    return notification;
  };
  const list = async (statuses: Status[], userId = ""): Promise<Notification[]> => {
    const all: Notification[] = [];
    const { send } = key();
    for (let pageToken = ""; ; ) {
      const page = await send.listNotifications({ filter: { statuses, userId }, pageSize: 200, pageToken });
      all.push(...page.notifications);
      if (page.nextPageToken === "") return all;
      pageToken = page.nextPageToken;
    }
  };
  const batchesOf = async (userId: string): Promise<Batch[]> => (await key().batches.listBatches({ userId })).batches;

  /** Until nothing is left to do at this time: nothing to decide, nothing due, no batch to close. */
  async function settle(): Promise<void> {
    const isDue = (time: Timestamp | undefined) => time !== undefined && timestampDate(time) <= now;
    const busy = async () =>
      (await list([Status.ACCEPTED, Status.SCHEDULED, Status.HELD])).filter(
        ({ status, holdTime }) => status === Status.ACCEPTED || isDue(holdTime),
      );
    const closing = async () => {
      const states = [BatchState.OPEN, BatchState.FULL];
      const answers = await Promise.all(states.map((state) => key().batches.listBatches({ state, pageSize: 200 })));
      return answers.flatMap(({ batches }) => batches).filter(({ flushTime }) => isDue(flushTime));
    };
    // What closes becomes a notification to decide, which does not join a batch again: so it is looked for before and after.
    await until(
      async () => [...(await busy()), ...(await closing()), ...(await busy())],
      (left) => left.length === 0,
    );
  }

  return {
    a,
    services,
    /** Clients of a node, the other one at each call. */
    key,
    user: (userId: string) => a.clientsFor(userId),
    now: clock,
    get,
    batchesOf,
    settle,
    in: (ms: number) => timestampFromDate(new Date(now.getTime() + ms)),
    at: (time: string) => timestampFromDate(new Date(time)),
    /** Sets the clock forward when all is done, and waits until everything that is due then has happened. */
    async goTo(time: string): Promise<void> {
      await settle();
      const next = new Date(time);
      if (!(next > now)) throw new Error(`the story goes forward: ${time} is not after ${now.toISOString()}`);
      now = next;
      await settle();
    },
    /** Sends one and waits for what is decided. */
    async send(
      userId: string,
      type: string,
      title: string,
      more: Partial<Init<typeof SendRequestSchema>> = {},
    ): Promise<SendResult> {
      const { results } = await key().send.send({
        to: { userIds: [userId] },
        type,
        content: { title },
        waitForDecision: { seconds: 10n },
        ...more,
      });
      const [result] = results;
      if (result === undefined) throw new Error("no result");
      return result;
    },
    /** What the user's inbox shows, the oldest first: when it came, and its title. */
    async inbox(userId: string): Promise<[time: string, title: string][]> {
      const { entries } = await key().inbox.listEntries({ userId, pageSize: 100 });
      return entries.toReversed().map(({ arriveTime, content }) => [shown(arriveTime), content?.title ?? ""]);
    },
    /** The user changes their preferences, as they do in the application. */
    async prefer(userId: string, preferences: Init<typeof PreferencesSchema>): Promise<Reconciled | undefined> {
      const own = await a.clientsFor(userId);
      return (await own.preferences.updatePreferences({ preferences })).reconciled;
    },
    /** The end of a story: what was counted is what a recount finds, by the public history and in the database. */
    async balance(): Promise<void> {
      await settle();
      const recounted: Record<string, number> = {};
      for (const { id, type } of await list([])) {
        const { timeline } = await key().send.getNotification({ id });
        for (const [index, { status, channel }] of timeline.entries()) {
          // It is accepted once, however often it is released to be decided again.
          if (index > 0 && status === Status.ACCEPTED) continue;
          // What happens to an escalation changes nothing that is counted, unless a channel takes it.
          if (status === Status.UNSPECIFIED) continue;
          const row = rowOf(type, status, channel);
          recounted[row] = (recounted[row] ?? 0) + 1;
        }
      }
      const { counters } = await key().analytics.queryCounters({
        startTime: timestampFromDate(began),
        groupBy: [Dimension.TYPE, Dimension.STATUS, Dimension.CHANNEL],
      });
      const counted = counters.map(({ type, status, channel, count }) => [rowOf(type, status, channel), Number(count)]);
      expect(Object.fromEntries(counted)).toEqual(recounted);
      const sql = postgres(services.databaseUrl, { max: 1, onnotice: () => undefined });
      try {
        expect(await wrongInboxes(sql)).toEqual([]);
        expect(await wrongInAppCounters(sql)).toEqual([]);
        expect(await wrongSuppressions(sql, a.tenant.tenantId)).toEqual([]);
      } finally {
        await sql.end();
      }
    },
  };
}

export type TaskMaster = Awaited<ReturnType<typeof taskmaster>>;

/** An instant as the stories write it: "2027-03-01T09:00Z". */
export function shown(time: Timestamp | undefined): string {
  return time === undefined
    ? ""
    : timestampDate(time)
        .toISOString()
        .replace(/:00\.000Z$/, "Z");
}

const rowOf = (type: string, status: Status, channel: number) =>
  `${type} ${StatusSchema.value[status]?.name} ${channel === 0 ? "as a whole" : ChannelSchema.value[channel as Channel]?.name}`;
