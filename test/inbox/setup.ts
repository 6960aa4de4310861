import type { MessageInitShape } from "@bufbuild/protobuf";
import postgres from "postgres";
import { Registry } from "prom-client";
import { afterAll, afterEach, expect } from "vitest";
import type { InboxChangedSchema } from "#gen/posthorn/v1/stream_service_pb.ts";
import { newIds } from "#src/ids.ts";
import type { InboxEntryRow } from "#src/inbox/entry.ts";
import { WHOLE_INBOX } from "#src/inbox/filter.ts";
import { openInbox } from "#src/inbox/inbox.ts";
import { listEntries, type Owner, readHeads } from "#src/inbox/queries.ts";
import { openStore } from "#src/store/store.ts";
import { createMetrics } from "#src/telemetry/metrics.ts";
import { type Arrival, arrive } from "../support/arrive.ts";
import { wrongInAppCounters, wrongInboxes } from "../support/recount.ts";
import { testServices } from "../support/services.ts";

export const TENANT = "01890000-0000-7000-8000-00000000000a";
export const OTHER_TENANT = "01890000-0000-7000-8000-00000000000b";

export type Announced = { tenantId: string; userId: string } & MessageInitShape<typeof InboxChangedSchema>;

/** An inbox on a database of its own, with a clock that the test moves. Every test ends with a recount. */
export async function inboxOnPostgres() {
  const { databaseUrl } = await testServices();
  const open = () =>
    openStore({
      url: databaseUrl,
      hotPoolSize: 12,
      poolSize: 2,
      statementTimeoutMs: 20_000,
      lockTimeoutMs: 10_000,
      prepare: true,
    });
  const store = open();
  const sql = postgres(databaseUrl, { max: 2, onnotice: () => undefined });
  const time = { now: new Date() };
  const clock = () => time.now;
  const newId = newIds(clock);
  const announced: Announced[] = [];
  const read: { tenantId: string; userId: string; ids: readonly string[] }[] = [];
  const inbox = openInbox({
    store,
    clock,
    metrics: createMetrics(new Registry()),
    log: { debug: () => undefined },
    counterSlots: [0, 1, 2],
    inboxChanged: (tenantId, userId, event) => void announced.push({ tenantId, userId, ...event }),
    notificationsRead: (tenantId, userId, ids) => void read.push({ tenantId, userId, ids }),
    notificationConfirmed: () => undefined,
  });

  afterEach(async () => {
    announced.length = 0;
    read.length = 0;
    expect(await wrongInboxes(sql)).toEqual([]);
    expect(await wrongInAppCounters(sql)).toEqual([]);
  });
  afterAll(async () => {
    await store[Symbol.asyncDispose]();
    await sql.end();
  });

  let users = 0;
  return {
    store,
    sql,
    inbox,
    time,
    clock,
    newId,
    announced,
    read,
    open,
    /** A user nobody else has. */
    user: (tenantId = TENANT): Owner => ({ tenantId, userId: `user-${++users}` }),
    /** Delivers to one user in one transaction. */
    deliver: (owner: Owner, arrivals: number | Omit<Arrival, "userId">[]): Promise<string[]> => {
      const list = typeof arrivals === "number" ? Array.from({ length: arrivals }, () => ({})) : arrivals;
      return arrive(
        { store, newId, now: time.now },
        owner.tenantId,
        list.map((each) => ({ ...each, userId: owner.userId })),
      );
    },
    head: async (owner: Owner) =>
      (await store.tenant(owner.tenantId, (tx) => readHeads(tx, owner.tenantId, [owner.userId]))).get(owner.userId),
    list: (owner: Owner, filter: Partial<typeof WHOLE_INBOX> = {}): Promise<InboxEntryRow[]> =>
      store.tenant(owner.tenantId, (tx) =>
        listEntries(tx, owner, {
          filter: { ...WHOLE_INBOX, ...filter },
          beforeSeq: undefined,
          limit: 5000,
          now: time.now,
        }),
      ),
  };
}

/** The tests' default, as a caller that never gives up. */
export const NEVER = new AbortController().signal;
