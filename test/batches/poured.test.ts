import { timestampDate } from "@bufbuild/protobuf/wkt";
import postgres from "postgres";
import { afterAll, expect, test } from "vitest";
import { BatchKind } from "#gen/posthorn/v1/batch_service_pb.ts";
import { Reason, Status } from "#gen/posthorn/v1/notification_pb.ts";
import { Digest_Mode } from "#gen/posthorn/v1/preferences_service_pb.ts";
import { platformOfFile } from "../support/platform.ts";
import { testServices } from "../support/services.ts";
import { stoppingStore } from "../support/stopping.ts";
import { until } from "../support/until.ts";
import { batching, HOUR } from "./setup.ts";

// A node whose clock stands still at a full hour, and a user whose rules change while the cap sends their batch into a digest.

const nowMs = Math.ceil(Date.now() / HOUR) * HOUR;
const services = await testServices();
const { stop, store } = stoppingStore();
const node = await platformOfFile({ services, clock: () => new Date(nowMs), hourlyCap: true, between: { store } });
const { newType, newUser, get, batchOf, send, prefer } = batching(node);
const sql = postgres(services.databaseUrl, { max: 1, onnotice: () => undefined });
afterAll(() => sql.end());

test("who moves to another zone while their digest is made has it at the next full hour there", async () => {
  const user = newUser();
  await prefer(user, { timeZone: "UTC", hourlyCap: { maxPerHour: 1 } });
  expect((await send(user, "general", "the only one of this hour")).status).toBe(Status.DELIVERED);
  const type = await newType({ batchable: true, maxSize: 2 });
  // By the rules as they are it is made for the next full hour here, and nobody sees it yet.
  const pouring = stop("openDigests", "uncommitted");
  const members = [await send(user, type, "a"), await send(user, type, "b")];
  await pouring.reached;
  let over = false;
  // In a digest of every hour they stay, if that is not ended: only it is at other times.
  const moves = { timeZone: "Asia/Kolkata", digest: { mode: Digest_Mode.HOURLY }, batching: { enabled: false } };
  const changing = prefer(user, moves).finally(() => {
    over = true;
  });
  const waiting = () => sql`
    select from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'`;
  await until(
    async () => over || (await waiting()).length > 0,
    (waitsOrOver) => waitsOrOver,
  );
  pouring.release();
  expect((await changing).reconciled).toMatchObject({ rebatched: 2, unchanged: 0 });
  for (const { notificationId } of members) {
    const { batchId } = await until(
      () => get(notificationId),
      ({ status, reason }) => status === Status.BATCHED && reason === Reason.DIGEST,
    );
    const { kind, flushTime } = await batchOf(batchId);
    expect([kind, flushTime && timestampDate(flushTime).getTime()]).toEqual([BatchKind.DIGEST, nowMs + HOUR / 2]);
  }
});
