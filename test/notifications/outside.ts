import { timestampFromDate } from "@bufbuild/protobuf/wkt";
import postgres, { type TransactionSql } from "postgres";
import { afterAll } from "vitest";
import { Channel, Reason, Status } from "#gen/posthorn/v1/notification_pb.ts";
import { steppedClock } from "../batches/setup.ts";
import { escalating } from "../escalation/setup.ts";
import { obedientChannels } from "../support/obedient-channels.ts";
import { platformOfFile } from "../support/platform.ts";
import { testServices } from "../support/services.ts";
import { until } from "../support/until.ts";
import { holding } from "./holding.ts";

const { EMAIL, SMS } = Channel;

/** What the tests of a file need to hold, give and change what outside channels have not got: they do as they are told. */
export async function outside() {
  const services = await testServices();
  const { clock, step: pass } = steppedClock();
  const { channels, ...obedient } = obedientChannels();
  const options = { services, clock, between: { channels } };
  const node = await platformOfFile(options);
  const sql = postgres(services.databaseUrl, { max: 2, onnotice: () => undefined });
  afterAll(() => sql.end());
  const { key } = node;
  const { tenantId } = node.tenant;
  const users = escalating(node);
  const { newUser, send, told } = users;

  return {
    ...{ services, clock, pass, options, node, key, sql, tenantId },
    ...obedient,
    ...users,
    ...holding(node, pass),

    within: (ms: number) => timestampFromDate(new Date(clock().getTime() + ms)),

    /** What of one was given to outside channels, by its titles. */
    titles: (id: string) =>
      obedient.given.filter(({ notificationId }) => notificationId === id).map(({ content }) => content.title),

    /** A batch of two that has closed, and whose text message waits for tomorrow. */
    async heldBatch(user: string): Promise<{ members: string[]; whole: string }> {
      const type = { key: "together", displayName: "Together", batching: { batchable: true, maxSize: 2 } };
      await key.types.createType({ type: { ...type, defaultChannels: [SMS] } });
      const members = [await send(user, { type: "together" }), await send(user, { type: "together" })];
      const whole = await until(
        async () => {
          const { notifications } = await key.send.listNotifications({ filter: { userId: user } });
          return notifications.find(({ id, batchId, status }) => {
            return batchId !== "" && !members.includes(id) && status === Status.PROCESSING;
          })?.id;
        },
        (id) => id !== undefined,
      );
      await told(whole ?? "", ({ reason }) => reason === Reason.CHANNEL_DAY_LIMIT);
      return { members, whole: whole ?? "" };
    },

    /** Begins something that has to wait for what `lock` has locked, which is let go when it waits and `meanwhile` is over. */
    async behind<T>(
      lock: (tx: TransactionSql) => Promise<unknown>,
      begin: () => Promise<T>,
      meanwhile: (pid: number) => Promise<unknown> = async () => undefined,
    ): Promise<T> {
      const { begun } = await sql.begin(async (tx) => {
        await lock(tx);
        const [own] = await tx<{ pid: number }[]>`select pg_backend_pid() as pid`;
        const pid = own?.pid ?? 0;
        const begun = begin();
        await until(
          () => sql`select from pg_stat_activity where ${pid}::int = any(pg_blocking_pids(pid))`,
          (rows) => rows.length > 0,
        );
        await meanwhile(pid);
        return { begun };
      });
      return begun;
    },

    /** Twelve e-mails to as many users, once so many of them are being handed over or have been. */
    async onTheirWay(title: string, atLeast: number): Promise<string[]> {
      const items = Array.from({ length: 12 }, () => ({
        ...{ to: { userIds: [newUser()] }, content: { title }, channels: [EMAIL] },
      }));
      const { results } = await key.send.sendBatch({ items });
      const ids = results.map(({ result }) =>
        result.case === "response" ? (result.value.results[0]?.notificationId ?? "") : "",
      );
      await until(
        () => sql`
          select from notifications where tenant_id = ${tenantId} and id = any(${ids}) and status >= ${Status.PROCESSING}`,
        ({ length }) => length >= atLeast,
      );
      return ids;
    },
  };
}
