import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { MessageInitShape } from "@bufbuild/protobuf";
import { afterAll } from "vitest";
import type { Notification, Status, TimelineEntry } from "#gen/posthorn/v1/notification_pb.ts";
import type { SendRequestSchema } from "#gen/posthorn/v1/send_service_pb.ts";
import type { Store } from "#src/store/store.ts";
import type { TestPlatform } from "../support/platform.ts";
import { until } from "../support/until.ts";

export const seconds = (n: number) => ({ seconds: BigInt(n) });

/** A line of a sink. */
export type Sunk = { idempotencyKey: string; notificationId: string; userId: string; step: number; content: object };

/** A folder for a development sink, gone after the file's tests. */
export async function sinkFolder() {
  const folder = await mkdtemp(join(tmpdir(), "posthorn-sink-"));
  afterAll(() => rm(folder, { recursive: true, force: true }));
  const sunk = async (channel: string): Promise<Sunk[]> => {
    const text = await readFile(join(folder, `${channel}.jsonl`), "utf8").catch(() => "");
    return text
      .split("\n")
      .filter((line) => line !== "")
      .map((line) => JSON.parse(line) as Sunk);
  };
  return {
    env: { POSTHORN_DEV_SINK: folder },
    sunk,
    /** What a channel was given of a notification. */
    async of(channel: string, id: string) {
      return (await sunk(channel)).filter(({ notificationId }) => notificationId === id);
    },
  };
}

type Init = Exclude<MessageInitShape<typeof SendRequestSchema>, { $typeName: string }>;

/** What tests of escalations do with a node. */
export function escalating({ key }: Pick<TestPlatform, "key">) {
  let users = 0;
  const get = async (id: string): Promise<Notification & { timeline: TimelineEntry[] }> => {
    const { notification, timeline } = await key.send.getNotification({ id });
    if (notification === undefined) throw new Error("no notification");
    return { ...notification, timeline };
  };
  return {
    newUser: () => `user-${++users}`,
    get,
    async send(userId: string, more: Partial<Init> = {}): Promise<string> {
      const { results } = await key.send.send({
        to: { userIds: [userId] },
        content: { title: "Server down" },
        waitForDecision: seconds(10),
        ...more,
      });
      return results[0]?.notificationId ?? "";
    },
    prefer: (userId: string, preferences: object) =>
      key.preferences.updatePreferences({ userId, preferences, reason: "a test" }),
    reached: (id: string, status: Status) =>
      until(
        () => get(id),
        (notification) => notification.status === status,
      ),
    /** Its history until it says what is waited for. */
    told: (id: string, good: (entry: TimelineEntry) => boolean) =>
      until(
        () => get(id),
        ({ timeline }) => timeline.some(good),
      ),
  };
}

/**
 * Stands between nodes and their stores, and stops whoever takes steps next: before its transaction, or between its
 * statements and its commit.
 */
export function stoppableTakings() {
  type Stop = { at: "before" | "uncommitted"; reached: () => void; released: Promise<void> };
  let next: Stop | undefined;
  return {
    stop(at: Stop["at"]): { reached: Promise<void>; release: () => void } {
      const reached = Promise.withResolvers<void>();
      const released = Promise.withResolvers<void>();
      next = { at, reached: reached.resolve, released: released.promise };
      return { reached: reached.promise, release: released.resolve };
    },
    /** Nobody is to be stopped any more. */
    go(): void {
      next = undefined;
    },
    store: (store: Store): Store => ({
      ...store,
      async tenant(tenantId, work) {
        if (next === undefined || !String(work).includes("lockDue")) return store.tenant(tenantId, work);
        const { at, reached, released } = next;
        next = undefined;
        const wait = () => {
          reached();
          return released;
        };
        if (at === "before") await wait();
        return store.tenant(tenantId, async (tx) => {
          const result = await work(tx, () => undefined);
          if (at === "uncommitted") await wait();
          return result;
        });
      },
      [Symbol.asyncDispose]: () => store[Symbol.asyncDispose](),
    }),
  };
}
