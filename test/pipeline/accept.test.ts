import type { MessageInitShape } from "@bufbuild/protobuf";
import { BinaryWriter } from "@bufbuild/protobuf/wire";
import { timestampDate, timestampFromDate } from "@bufbuild/protobuf/wkt";
import { Client, credentials, Metadata } from "@grpc/grpc-js";
import fc from "fast-check";
import postgres from "postgres";
import { afterAll, describe, expect, test } from "vitest";
import { Scope } from "#gen/posthorn/v1/admin_service_pb.ts";
import { ErrorReason } from "#gen/posthorn/v1/error_pb.ts";
import { Priority, Reason, Status } from "#gen/posthorn/v1/notification_pb.ts";
import type { SendRequestSchema, SendResponse } from "#gen/posthorn/v1/send_service_pb.ts";
import { bytes, instants, plain, texts } from "#src/store/arrays.ts";
import { platformOfFile } from "../support/platform.ts";
import { refusalOf } from "../support/refusal.ts";
import { testServices } from "../support/services.ts";
import { until } from "../support/until.ts";

const services = await testServices();
const a = await platformOfFile({ services });
const b = await platformOfFile({ services, tenant: a.tenant });
const onB = b.clients(a.tenant.apiKey);
const sql = postgres(services.databaseUrl, { max: 2, onnotice: () => undefined });
afterAll(() => sql.end());

type Request = MessageInitShape<typeof SendRequestSchema>;
let users = 0;
/** A user that no other test has. */
const someone = () => `user-${++users}`;
const to = (...userIds: string[]) => ({ userIds });
const hi = { title: "Hi" };
const inFuture = (ms: number) => timestampFromDate(new Date(Date.now() + ms));
const scheduled = (ms: number) => ({ schedule: { case: "scheduleTime" as const, value: inFuture(ms) } });
const get = async (id: string | undefined) => {
  const { notification, timeline } = await a.key.send.getNotification({ id: id ?? "" });
  if (notification === undefined) throw new Error("no notification");
  return { ...notification, timeline: timeline.map(({ status }) => status) };
};
const idOf = (response: SendResponse) => response.results[0]?.notificationId ?? "";
const decided = (id: string, status: Status) =>
  until(
    () => get(id),
    (found) => found.status === status,
  );

describe("idempotency keys", () => {
  test("64 callers on two servers with one key: one notification and 64 equal answers", async () => {
    const userId = someone();
    const request = { to: to(userId), content: hi, idempotencyKey: `key-${userId}` };
    const answers = await Promise.all(
      Array.from({ length: 64 }, (_, n) => (n % 2 === 0 ? a.key : onB).send.send(request)),
    );
    expect(
      new Set(answers.map((answer) => JSON.stringify(answer, (_, v) => (typeof v === "bigint" ? `${v}` : v)))).size,
    ).toBe(1);
    const { notifications } = await a.key.send.listNotifications({ filter: { userId } });
    expect(notifications.map(({ id }) => id)).toEqual([idOf(answers[0] as SendResponse)]);
  });

  test("another body with the same key is refused, on another server too", async () => {
    const userId = someone();
    const request = { to: to(userId), content: hi, idempotencyKey: `key-${userId}` };
    await a.key.send.send(request);
    for (const [clients, other] of [
      [a.key, { content: { title: "Ho" } }],
      [onB, { priority: Priority.LOW }],
      [onB, { to: to(someone()) }],
    ] as const) {
      const { code, reason } = await refusalOf(clients.send.send({ ...request, ...other }));
      expect([code, reason]).toEqual([6, "IDEMPOTENCY_KEY_REUSED"]);
    }
  });

  test("the order in which data was written does not make another body, nor does the wait", async () => {
    const userId = someone();
    const request = { to: to(userId), idempotencyKey: `key-${userId}` };
    const first = await a.key.send.send({ ...request, content: { ...hi, data: { a: 1, b: { c: [1, 2], d: null } } } });
    const again = await onB.send.send({
      ...request,
      content: { ...hi, data: { b: { d: null, c: [1, 2] }, a: 1 } },
      waitForDecision: { seconds: 2n },
    });
    expect(idOf(again)).toBe(idOf(first));
    const { reason } = await refusalOf(
      a.key.send.send({ ...request, content: { ...hi, data: { a: 1, b: { c: [2, 1], d: null } } } }),
    );
    expect(reason).toBe("IDEMPOTENCY_KEY_REUSED");
  });

  test("a refused request does not use up its key", async () => {
    const userId = someone();
    const request = { to: to(userId), content: hi, idempotencyKey: `key-${userId}` };
    expect((await refusalOf(a.key.send.send({ ...request, type: "no-such" }))).reason).toBe("NOT_FOUND");
    expect((await a.key.send.send(request)).results).toHaveLength(1);
  });

  test("keys of two tenants have nothing to do with each other", async () => {
    const other = a.clients((await a.newTenant()).apiKey);
    const userId = someone();
    const request = { to: to(userId), content: hi, idempotencyKey: `key-${userId}` };
    const [mine, theirs] = [await a.key.send.send(request), await other.send.send(request)];
    expect(idOf(theirs)).not.toBe(idOf(mine));
  });

  test("a key is forgotten after its time", async () => {
    const userId = someone();
    const request = { to: to(userId), content: hi, idempotencyKey: `key-${userId}` };
    const first = await a.key.send.send(request);
    await sql`update idempotency_keys set expires_at = now() - interval '1 second' where key = ${request.idempotencyKey}`;
    const second = await a.key.send.send({ ...request, content: { title: "Ho" } });
    expect(idOf(second)).not.toBe(idOf(first));
    expect(idOf(await onB.send.send({ ...request, content: { title: "Ho" } }))).toBe(idOf(second));
  });
});

describe("dedup keys", () => {
  test("racing on two servers, one notification is created and every answer names it", async () => {
    const userId = someone();
    const request = { to: to(userId), content: hi, dedupKey: "offer" };
    const answers = await Promise.all(
      Array.from({ length: 40 }, (_, n) => (n % 2 === 0 ? a.key : onB).send.send(request)),
    );
    expect(new Set(answers.map(idOf)).size).toBe(1);
    expect(answers.filter(({ results }) => results[0]?.deduplicated === false)).toHaveLength(1);
    const { notifications } = await a.key.send.listNotifications({ filter: { userId } });
    expect(notifications).toHaveLength(1);
  });

  test("count for each user, and no longer than their window", async () => {
    const [one, two] = [someone(), someone()];
    const request = { content: hi, dedupKey: "offer", dedupWindow: { seconds: 1n } };
    const first = await a.key.send.send({ ...request, to: to(one) });
    const both = await a.key.send.send({ ...request, to: to(one, two) });
    expect(both.results.map(({ deduplicated }) => deduplicated)).toEqual([true, false]);
    expect(both.results[0]?.notificationId).toBe(idOf(first));
    const later = await until(
      () => a.key.send.send({ ...request, to: to(one) }),
      ({ results }) => results[0]?.deduplicated === false,
    );
    expect(idOf(later)).not.toBe(idOf(first));
  });
});

describe("collapse keys", () => {
  test("what waits is superseded by what comes after, and what was delivered stays", async () => {
    const userId = someone();
    const delivered = await a.key.send.send({ to: to(userId), content: hi, collapseKey: "c" });
    await decided(idOf(delivered), Status.DELIVERED);
    const waiting = await a.key.send.send({ to: to(userId), content: hi, collapseKey: "c", ...scheduled(60_000) });
    const other = await a.key.send.send({ to: to(userId), content: hi, collapseKey: "d", ...scheduled(60_000) });
    const last = await onB.send.send({ to: to(userId), content: hi, collapseKey: "c" });
    expect(await get(idOf(waiting))).toMatchObject({ status: Status.CANCELLED, reason: Reason.SUPERSEDED });
    expect((await get(idOf(other))).status).toBe(Status.SCHEDULED);
    expect((await get(idOf(delivered))).status).toBe(Status.DELIVERED);
    await decided(idOf(last), Status.DELIVERED);
  });

  test("racing on two servers, one notification is left waiting", async () => {
    const userId = someone();
    const request = { to: to(userId), content: hi, collapseKey: "race", ...scheduled(60_000) };
    await Promise.all(Array.from({ length: 40 }, (_, n) => (n % 2 === 0 ? a.key : onB).send.send(request)));
    const { notifications } = await a.key.send.listNotifications({ filter: { userId }, pageSize: 100 });
    const left = notifications.filter(({ status }) => status === Status.SCHEDULED);
    expect(notifications).toHaveLength(40);
    expect(left).toHaveLength(1);
    for (const { id } of notifications.filter((each) => each.id !== left[0]?.id))
      expect((await get(id)).timeline).toEqual([Status.ACCEPTED, Status.SCHEDULED, Status.CANCELLED]);
  });
});

describe("when", () => {
  test("a schedule in the future waits and is released at its time", async () => {
    const at = new Date(Date.now() + 600);
    const sent = await a.key.send.send({
      to: to(someone()),
      content: hi,
      schedule: { case: "scheduleTime", value: timestampFromDate(at) },
    });
    expect(sent.results[0]).toMatchObject({ status: Status.SCHEDULED, queued: true });
    const found = await decided(idOf(sent), Status.DELIVERED);
    const deliveredAt = found.deliverTime && timestampDate(found.deliverTime);
    expect(deliveredAt?.getTime()).toBeGreaterThanOrEqual(at.getTime());
    expect(found.timeline).toEqual([Status.ACCEPTED, Status.SCHEDULED, Status.ACCEPTED, Status.DELIVERED]);
  });

  test("a wall-clock time is each recipient's own", async () => {
    const [tokyo, nowhere] = [someone(), someone()];
    await a.key.users.upsertUser({ user: { id: tokyo, timeZone: "Asia/Tokyo" } });
    const day = new Date(Date.now() + 3 * 86_400_000).toISOString().slice(0, 10);
    const sent = await a.key.send.send({
      to: to(tokyo, nowhere),
      content: hi,
      schedule: { case: "localScheduleTime", value: `${day}T09:00` },
    });
    const times = sent.results.map(({ estimatedDeliveryTime: time }) => time && timestampDate(time).toISOString());
    expect(times).toEqual([`${day}T00:00:00.000Z`, `${day}T09:00:00.000Z`]);
  });

  test("what expires before it is due, or is held beyond it, is never delivered", async () => {
    const sent = await a.key.send.send({
      to: to(someone()),
      content: hi,
      ...scheduled(400),
      expiry: { case: "expireTime", value: inFuture(401) },
    });
    // Overdue by the time the scheduler looks, or not: never delivered after.
    const found = await until(
      () => get(idOf(sent)),
      ({ status }) => status !== Status.SCHEDULED && status !== Status.ACCEPTED,
    );
    const deliveredAt = found.deliverTime && timestampDate(found.deliverTime).getTime();
    if (found.status === Status.DELIVERED)
      expect(deliveredAt).toBeLessThan(timestampDate(found.expireTime as never).getTime());
    else expect([found.status, found.reason]).toEqual([Status.EXPIRED, Reason.EXPIRED]);
  });
});

describe("wait_for_decision", () => {
  test("says what became of each", async () => {
    const userIds = [someone(), someone(), someone()];
    const { results } = await a.key.send.send({ to: to(...userIds), content: hi, waitForDecision: { seconds: 5n } });
    expect(results.map(({ userId }) => userId)).toEqual(userIds);
    for (const result of results)
      expect(result).toMatchObject({ status: Status.DELIVERED, queued: false, verdicts: [{ kind: 1 }] });
  });
  test("does not wait for what is scheduled", async () => {
    const before = performance.now();
    const { results } = await a.key.send.send({
      to: to(someone()),
      content: hi,
      ...scheduled(60_000),
      waitForDecision: { seconds: 5n },
    });
    expect(results[0]).toMatchObject({ status: Status.SCHEDULED, queued: true });
    expect(performance.now() - before).toBeLessThan(3000);
  });
});

describe("many at once", () => {
  test("a bad item of a batch is refused by itself, with paths relative to it", async () => {
    const userId = someone();
    const good = (title: string): Request => ({ to: to(userId), content: { title } });
    const bad: [Request, number, ErrorReason, string[]][] = [
      [{ to: to(userId), content: { title: "" } }, 3, ErrorReason.INVALID_REQUEST, ["content.title"]],
      [{ content: hi }, 3, ErrorReason.INVALID_REQUEST, ["to"]],
      [{ to: {}, content: hi }, 3, ErrorReason.INVALID_REQUEST, ["to"]],
      [{ to: to("has space"), content: hi }, 3, ErrorReason.INVALID_REQUEST, ["to.user_ids[0]"]],
      [{ ...good("x"), type: "no-such" }, 5, ErrorReason.NOT_FOUND, []],
      [{ ...good("x"), ...scheduled(401 * 86_400_000) }, 3, ErrorReason.INVALID_REQUEST, ["schedule_time"]],
      [
        { ...good("x"), schedule: { case: "scheduleTime" as const, value: { seconds: 2n ** 62n } } } as Request,
        3,
        ErrorReason.INVALID_REQUEST,
        ["schedule_time"],
      ],
      [
        { to: to(userId), content: { ...hi, data: { n: Number.POSITIVE_INFINITY } } },
        3,
        ErrorReason.INVALID_REQUEST,
        ["content.data"],
      ],
    ];
    const items = bad.flatMap(([request], n) => [good(`before ${n}`), request]);
    const { results } = await a.key.send.sendBatch({ items });
    expect(results).toHaveLength(items.length);
    for (const [n, [, code, reason, fields]] of bad.entries()) {
      expect(results[2 * n]?.result.case).toBe("response");
      const { value } = results[2 * n + 1]?.result ?? {};
      expect(value, `item ${n}`).toMatchObject({ code, reason });
      expect((value as { fieldViolations: { field: string }[] }).fieldViolations.map(({ field }) => field)).toEqual(
        fields,
      );
    }
    const { notifications } = await a.key.send.listNotifications({ filter: { userId } });
    expect(notifications.map(({ content }) => content?.title).toReversed()).toEqual(bad.map((_, n) => `before ${n}`));
  });

  test("a batch that names too many users together is refused whole", async () => {
    const items = Array.from({ length: 11 }, (_, n) => ({
      to: to(...Array.from({ length: 1000 }, (_, m) => `crowd-${n}-${m}`)),
      content: hi,
    }));
    expect((await refusalOf(a.key.send.sendBatch({ items }))).reason).toBe("LIMIT_OF_CALL");
  });

  test("within a batch, items of one idempotency key and of one dedup key meet as if sent apart", async () => {
    const userId = someone();
    const keyed = { to: to(userId), content: hi, idempotencyKey: `key-${userId}` };
    const deduped = { to: to(userId), content: hi, dedupKey: "k" };
    const { results } = await a.key.send.sendBatch({
      items: [keyed, keyed, { ...keyed, content: { title: "Ho" } }, deduped, deduped],
    });
    const [first, again, other, one, two] = results.map(({ result }) => result);
    expect(again).toEqual(first);
    expect(other?.value).toMatchObject({ reason: ErrorReason.IDEMPOTENCY_KEY_REUSED });
    expect(idOf(two?.value as SendResponse)).toBe(idOf(one?.value as SendResponse));
    expect(two?.value).toMatchObject({ results: [{ deduplicated: true }] });
  });

  test("a stream of chunks is acknowledged chunk by chunk, in order, and everything is stored", async () => {
    const userIds = Array.from({ length: 50 }, () => someone());
    async function* chunks() {
      for (let chunkId = 1n; chunkId <= 30n; chunkId++)
        yield { chunkId, items: userIds.map((userId) => ({ to: to(userId), content: { title: `${chunkId}` } })) };
    }
    const acks: bigint[] = [];
    for await (const { chunkId, results } of a.key.send.sendStream(chunks())) {
      acks.push(chunkId);
      expect(results.map(({ result }) => result.case)).toEqual(userIds.map(() => "response"));
    }
    expect(acks).toEqual(Array.from({ length: 30 }, (_, n) => BigInt(n + 1)));
    const [{ count }] = await sql<
      [{ count: number }]
    >`select count(*)::int as count from notifications where user_id = any(${userIds})`;
    expect(count).toBe(1500);
  });
});

describe("who may", () => {
  test("pass the limits: keys with the scope, and it is written down", async () => {
    const { secret } = await a.key.admin.createApiKey({ displayName: "plain", scopes: [Scope.SEND] });
    const request = { to: to(someone()), content: hi, bypassRateLimit: true };
    expect(await refusalOf(a.clients(secret).send.send(request))).toMatchObject({
      reason: "SCOPE_MISSING",
      metadata: { scope: "SCOPE_BYPASS_RATE_LIMIT" },
    });
    const sent = await a.key.send.send(request);
    const audited = await sql`select actor, action from audit_entries where target = ${`notification:${idOf(sent)}`}`;
    expect(audited).toEqual([{ actor: expect.stringMatching(/^key:/), action: "send.bypass_rate_limit" }]);
  });
});

describe("hostile content", () => {
  const deep = (levels: number) => {
    let value: Record<string, unknown> = {};
    for (let n = 1; n < levels; n++) value = { in: value };
    return value;
  };
  test("data at the bounds arrives as it was sent", async () => {
    const userId = someone();
    const data = { ...deep(16), n: 1e308, text: "🐘\u0000\u2028</script>", __proto__: { x: 1 }, constructor: null };
    const sent = await a.key.send.send({ to: to(userId), content: { ...hi, data: data as never } });
    expect((await get(idOf(sent))).content?.data).toEqual({ ...data });
  });
  test.each([
    ["too deep", { data: deep(17) }],
    ["too large", { data: { text: "x".repeat(17_000) } }],
    ["not a number", { data: { deep: [{ n: Number.NaN }] } }],
  ])("data that is %s is refused by name", async (_, content) => {
    const refusal = await refusalOf(a.key.send.send({ to: to(someone()), content: { ...hi, ...content } as never }));
    expect(refusal).toMatchObject({ code: 3, fields: ["content.data"] });
  });
  test("a request nested five thousand deep is refused, and the server goes on", async () => {
    expect(await sendBytes(nestedRequest(5_000))).toBe(3);
    expect((await a.key.send.send({ to: to(someone()), content: hi })).results).toHaveLength(1);
  });
});

describe("array literals bring every value to Postgres unchanged", () => {
  // Read row by row: the driver reads a NULL within an array as a value.
  const read = async (literal: string, type: string) =>
    (
      await sql`select item from unnest(${literal}::text::${sql.unsafe(type)}[]) with ordinality as t (item, n) order by n`
    ).map(({ item }) => item);
  test("texts, also within arrays", async () => {
    const strings = ["", "null", "NULL", '"', "\\", "{}", "{a,b}", ",", "'", "a\nb", "ü🐘", " ", "\\x00", null];
    expect(await read(texts(strings), "text")).toEqual(strings);
    expect(await read(texts([]), "text")).toEqual([]);
    const [inner] = await read(texts([texts(strings), null]), "text");
    expect(await read(inner, "text")).toEqual(strings);
    await fc.assert(
      fc.asyncProperty(fc.array(fc.option(fc.string({ unit: "grapheme" }))), async (items) => {
        const storable = items.map((item) => item?.replaceAll("\0", "") ?? null);
        expect(await read(texts(storable), "text")).toEqual(storable);
      }),
      { numRuns: 100 },
    );
  });
  test("bytes, instants, numbers and flags", async () => {
    const blobs = [new Uint8Array(), Uint8Array.from([0, 255, 34, 92]), null, Buffer.from("null")];
    expect((await read(bytes(blobs), "bytea")).map((each) => each && [...each])).toEqual(
      blobs.map((each) => each && [...each]),
    );
    const dates = [new Date(0), new Date("2026-10-25T01:30:00.123Z"), null];
    expect(await read(instants(dates), "timestamptz")).toEqual(dates);
    const numbers = [0, -1, 2 ** 31 - 1, null];
    expect(await read(plain(numbers), "int")).toEqual(numbers);
    expect(await read(plain([true, false, null]), "boolean")).toEqual([true, false, null]);
  });
});

/** A SendRequest whose data is nested so deep; written by hand, because no client would. */
function nestedRequest(levels: number): Buffer {
  const len = (field: number, value: Uint8Array) =>
    new BinaryWriter()
      .uint32((field << 3) | 2)
      .bytes(value)
      .finish();
  const text = (field: number, value: string) => len(field, Buffer.from(value));
  // Struct.fields = 1 {key = 1, value = 2}, Value.struct_value = 5.
  let struct: Uint8Array = new Uint8Array();
  for (let n = 0; n < levels; n++) struct = len(1, Buffer.concat([text(1, "k"), len(2, len(5, struct))]));
  return Buffer.concat([len(1, text(1, "deep")), len(3, Buffer.concat([text(1, "Hi"), len(3, struct)]))]);
}

function sendBytes(request: Buffer): Promise<number> {
  const client = new Client(a.platform.grpcUrl, credentials.createInsecure());
  const metadata = new Metadata();
  metadata.set("authorization", `Bearer ${a.tenant.apiKey}`);
  const same = (bytes: Buffer) => bytes;
  return new Promise((resolve) => {
    client.makeUnaryRequest("/posthorn.v1.SendService/Send", same, same, request, metadata, (error) => {
      client.close();
      resolve(error?.code ?? 0);
    });
  });
}
