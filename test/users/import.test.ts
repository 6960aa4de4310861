import { expect, test } from "vitest";
import { ErrorReason } from "#gen/posthorn/v1/error_pb.ts";
import { UserService } from "#gen/posthorn/v1/user_service_pb.ts";
import { Code } from "#src/errors.ts";
import { userService } from "#src/services/user-service.ts";
import { invoke, invokeBidi } from "../support/invoke.ts";
import { onPostgres } from "../support/on-postgres.ts";

const setup = await onPostgres();
const { sql, tenant, invalidations } = setup;
const service = userService({ ...setup, membershipChanged: () => undefined });
const { importUsers, getUser } = UserService.method;

type Init = { id: string; displayName?: string; email?: string; timeZone?: string; roles?: string[] };

async function run(chunks: Init[][], call = tenant()) {
  const answers = [];
  for await (const answer of invokeBidi(
    service,
    importUsers,
    chunks.map((users) => ({ users })),
    call,
  )) {
    answers.push(answer);
  }
  return answers;
}

test("10,000 users in ten chunks: each chunk is answered in order with the progress, and all are there", async () => {
  const call = tenant();
  const users = Array.from({ length: 10_000 }, (_, n) => ({
    id: `user-${n}`,
    displayName: `User ${n}`,
    email: `user-${n}@example.com`,
    timeZone: n % 2 === 0 ? "Europe/Lisbon" : "Asia/Kolkata",
    roles: n % 10 === 0 ? ["staff", `team-${n % 100}`] : [],
  }));
  const chunks = Array.from({ length: 10 }, (_, n) => users.slice(n * 1000, (n + 1) * 1000));
  const answers = await run(chunks, call);
  expect(answers.map(({ created, updated, refused }) => [created, updated, refused])).toEqual(
    Array.from({ length: 10 }, (_, n) => [BigInt((n + 1) * 1000), 0n, 0n]),
  );
  expect(
    await sql`
    select (select count(*)::int from users where tenant_id = ${call.tenantId}) as users,
      (select count(*)::int from user_roles where tenant_id = ${call.tenantId}) as roles`,
  ).toEqual([{ users: 10_000, roles: 2000 }]);

  const again = await run([chunks[0] ?? [], [...(chunks[1] ?? []).slice(0, 9), { id: "new" }]], call);
  expect(again.at(-1)).toMatchObject({ created: 1n, updated: 1009n, refused: 0n });
});

test("a chunk is stored before it is answered, and before the next is asked for", async () => {
  const call = tenant();
  const seen: string[] = [];
  async function* chunks() {
    yield { users: [{ id: "first" }] };
    seen.push((await invoke(service, getUser, { id: "first" }, call)).user?.id ?? "");
    yield { users: [{ id: "second" }] };
  }
  for await (const _ of invokeBidi(service, importUsers, chunks(), call)) seen.push("answer");
  expect(seen).toEqual(["answer", "first", "answer"]);
});

test("refused users are told with their position, code and fields, and do not affect the others", async () => {
  const call = tenant();
  const [answer] = await run(
    [
      [
        { id: "good-1" },
        { id: "has space" },
        { id: "no-zone", timeZone: "Mars/Olympus" },
        { id: "two", email: "nonsense", roles: ["1st"] },
        { id: "good-2" },
        { id: "x".repeat(100_000) },
      ],
    ],
    call,
  );
  expect(answer).toMatchObject({ created: 2n, updated: 0n, refused: 4n });
  const told = answer?.errors.map(({ index, userId, error }) => ({
    index,
    userId,
    fields: error?.fieldViolations.map(({ field }) => field),
  }));
  expect(told).toEqual([
    { index: 1, userId: "has space", fields: ["id"] },
    { index: 2, userId: "no-zone", fields: ["time_zone"] },
    { index: 3, userId: "two", fields: ["email", "roles[0]"] },
    { index: 5, userId: "x".repeat(128), fields: ["id"] },
  ]);
  for (const { error } of answer?.errors ?? []) {
    expect(error).toMatchObject({ code: Code.INVALID_ARGUMENT, reason: ErrorReason.INVALID_REQUEST });
    expect(error?.message).not.toBe("");
  }
  const stored = await sql`select id from users where tenant_id = ${call.tenantId} order by id`;
  expect(stored.map(({ id }) => id)).toEqual(["good-1", "good-2"]);
  const told2 = invalidations.published.filter(([, tenantId]) => tenantId === call.tenantId);
  expect(told2).toEqual([
    ["user", call.tenantId, "good-1"],
    ["user", call.tenantId, "good-2"],
  ]);
});

test("a user who is in a chunk twice ends as the last says, and is counted twice", async () => {
  const call = tenant();
  const [answer] = await run([[{ id: "a", roles: ["old"] }, { id: "b" }, { id: "a", roles: ["new"] }]], call);
  expect(answer).toMatchObject({ created: 2n, updated: 1n, refused: 0n });
  const roles = await sql`select role, user_id from user_roles where tenant_id = ${call.tenantId}`;
  expect(roles).toEqual([{ role: "new", user_id: "a" }]);
});

test("imports of the same users at once create each once", async () => {
  const call = tenant();
  const ids = Array.from({ length: 200 }, (_, n) => `user-${n}`);
  const chunk = (n: number) => (n % 2 === 0 ? ids : ids.toReversed()).map((id) => ({ id, roles: [`import-${n}`] }));
  const answers = await Promise.all(Array.from({ length: 8 }, (_, n) => run([chunk(n)], call)));
  const created = answers.reduce((sum, [answer]) => sum + Number(answer?.created ?? 0n), 0);
  expect(created).toBe(200);
  const roles = await sql`
    select count(*)::int as held, count(*) filter (where array[role] = roles)::int as listed
    from user_roles r join users u on u.tenant_id = r.tenant_id and u.id = r.user_id
    where r.tenant_id = ${call.tenantId}`;
  expect(roles).toEqual([{ held: 200, listed: 200 }]);
});
