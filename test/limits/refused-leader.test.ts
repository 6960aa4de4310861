import { timestampFromDate } from "@bufbuild/protobuf/wkt";
import postgres from "postgres";
import { afterAll, expect, test } from "vitest";
import { BatchKind, BatchState } from "#gen/posthorn/v1/batch_service_pb.ts";
import { Reason, Status } from "#gen/posthorn/v1/notification_pb.ts";
import { BatchRule_Mode } from "#gen/posthorn/v1/type_service_pb.ts";
import { batching, HOUR, MINUTE } from "../batches/setup.ts";
import { platformOfFile } from "../support/platform.ts";
import { testServices } from "../support/services.ts";
import { until } from "../support/until.ts";

// Whoever opened a batch, to go at once and be followed, and was killed before the cap was asked, asks it again.
let nowMs = Math.ceil(Date.now() / HOUR) * HOUR;
const services = await testServices();
const node = await platformOfFile({ services, clock: () => new Date(nowMs), hourlyCap: true });
const { key } = node;
const { newType, newUser, get, timeline, send, batchOf, prefer } = batching(node);
const sql = postgres(services.databaseUrl, { max: 1, onnotice: () => undefined });
afterAll(() => sql.end());

test("who has joined the batch of a leader that the cap refuses is decided anew, and goes where that goes", async () => {
  const user = newUser();
  await prefer(user, { hourlyCap: { maxPerHour: 2 } });
  const type = await newType({ batchable: true, mode: BatchRule_Mode.LEADING });
  expect(await send(user, type, "first")).toMatchObject({ status: Status.DELIVERED });
  const member = await send(user, type, "second");
  expect((await batchOf(member.batchId)).kind).toBe(BatchKind.BATCH);
  expect(await send(user, "general", "another")).toMatchObject({ status: Status.DELIVERED });
  const { results } = await key.send.send({
    ...{ to: { userIds: [user] }, type, content: { title: "third" } },
    schedule: { case: "scheduleTime", value: timestampFromDate(new Date(nowMs + MINUTE)) },
  });
  const leader = results[0]?.notificationId ?? "";
  expect(await get(leader)).toMatchObject({ status: Status.SCHEDULED });
  const { count } = await sql`update batches set leader_id = ${leader} where id = ${member.batchId}`;
  expect(count).toBe(1);

  nowMs += MINUTE;
  const [digest] = await until(
    async () => (await key.batches.listBatches({ userId: user, state: BatchState.OPEN })).batches,
    ([batch]) => batch?.kind === BatchKind.DIGEST && batch.size === 2,
  );
  expect((await batchOf(member.batchId)).state).toBe(BatchState.DISSOLVED);
  for (const id of [leader, member.notificationId])
    expect(await get(id)).toMatchObject({
      ...{ status: Status.BATCHED, reason: Reason.HOURLY_CAP, batchId: digest?.id },
    });
  const history = (await timeline(member.notificationId)).map(({ status }) => status);
  expect(history.filter((status) => status === Status.HELD)).toEqual([]);
});
