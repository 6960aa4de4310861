import { expect, test } from "vitest";
import { ErrorReason } from "#gen/posthorn/v1/error_pb.ts";
import { UserService } from "#gen/posthorn/v1/user_service_pb.ts";
import { userService } from "#src/services/user-service.ts";
import { fakeCall, userOf } from "../support/call.ts";
import { invoke } from "../support/invoke.ts";
import { onPostgres } from "../support/on-postgres.ts";
import { faultOf } from "../support/rejection.ts";

const setup = await onPostgres();
const { sql, time, invalidations, tenant } = setup;
const service = userService({ ...setup, membershipChanged: () => undefined });
const { upsertUser, updateUser, getUser, listUsers, deleteUser } = UserService.method;

/** Users whose roles are not what user_roles says. */
function disagreeing(tenantId: string): Promise<readonly unknown[]> {
  return sql`
    select * from (
      select id, array(select role from unnest(roles) as role order by role) as listed from users
      where tenant_id = ${tenantId}
    ) u full join (
      select user_id as id, array_agg(role order by role) as held from user_roles where tenant_id = ${tenantId}
      group by user_id
    ) r using (id)
    where coalesce(listed, '{}') is distinct from coalesce(held, '{}')`;
}

test("an upsert creates a user, a second one replaces everything known of them", async () => {
  const call = tenant();
  const full = {
    id: "ann",
    displayName: "Ann",
    email: "ann@example.com",
    phone: "+351211234567",
    locale: "pt-PT",
    timeZone: "Europe/Lisbon",
    roles: ["owner", "staff"],
    attributes: { plan: "pro", seats: 3, tags: ["a", null], nested: { yes: true } },
  };
  const first = await invoke(service, upsertUser, { user: full }, call);
  expect(first.created).toBe(true);
  expect(first.user).toMatchObject(full);

  time.now = new Date(time.now.getTime() + 5000);
  const second = await invoke(service, upsertUser, { user: { id: "ann", roles: ["staff", "admin"] } }, call);
  expect(second.created).toBe(false);
  expect(second.user?.createTime).toEqual(first.user?.createTime);
  expect(second.user?.updateTime).not.toEqual(first.user?.updateTime);

  const { user } = await invoke(service, getUser, { id: "ann" }, call);
  expect(user).toEqual(second.user);
  expect(user).toMatchObject({ displayName: "", email: "", timeZone: "", roles: ["staff", "admin"] });
  expect(user?.attributes).toBeUndefined();
  expect(await disagreeing(call.tenantId)).toEqual([]);
});

test("an update changes what the mask names, by default what is set, and nothing else", async () => {
  const call = tenant();
  await invoke(service, upsertUser, { user: { id: "bob", displayName: "Bob", locale: "en", roles: ["a", "b"] } }, call);

  const masked = await invoke(
    service,
    updateUser,
    { user: { id: "bob", locale: "de", roles: ["b", "c"] }, updateMask: { paths: ["roles", "display_name"] } },
    call,
  );
  expect(masked.user).toMatchObject({ displayName: "", locale: "en", roles: ["b", "c"] });
  const unmasked = await invoke(service, updateUser, { user: { id: "bob", timeZone: "Asia/Calcutta" } }, call);
  expect(unmasked.user).toMatchObject({ locale: "en", timeZone: "Asia/Calcutta", roles: ["b", "c"] });
  expect((await invoke(service, getUser, { id: "bob" }, call)).user).toEqual(unmasked.user);
  expect(await disagreeing(call.tenantId)).toEqual([]);
  expect(invalidations.published).toContainEqual(["user", call.tenantId, "bob"]);
});

test("an update of nobody and an unknown path are refused", async () => {
  const call = tenant();
  const missing = await faultOf(invoke(service, updateUser, { user: { id: "nobody", locale: "de" } }, call));
  expect(missing.reason).toBe(ErrorReason.NOT_FOUND);
  const mask = { paths: ["nickname"] };
  const unknown = await faultOf(invoke(service, updateUser, { user: { id: "nobody" }, updateMask: mask }, call));
  expect(unknown.reason).toBe(ErrorReason.INVALID_FIELD_MASK);
});

test.each([
  ["a time zone nobody knows", { timeZone: "Europe/Lisboa" }, "user.time_zone"],
  ["a language tag that is none", { locale: "en-abcdefgh-abcdefgh" }, "user.locale"],
  ["attributes over 8 KiB", { attributes: { a: "x".repeat(8200) } }, "user.attributes"],
  ["attributes that JSON cannot say", { attributes: { a: { b: [Number.POSITIVE_INFINITY] } } }, "user.attributes"],
  ["a text Postgres cannot hold", { displayName: "a\0b" }, "user.display_name"],
  ["an attribute Postgres cannot hold", { attributes: { "\0": 1 } }, "user.attributes"],
])("%s is refused, naming the field", async (_, fields, path) => {
  const call = tenant();
  await invoke(service, upsertUser, { user: { id: "eve" } }, call);
  const expected = { reason: ErrorReason.INVALID_REQUEST, fields: [path] };
  expect(await faultOf(invoke(service, upsertUser, { user: { id: "eve", ...fields } }, call))).toEqual(expected);
  expect(await faultOf(invoke(service, updateUser, { user: { id: "eve", ...fields } }, call))).toEqual(expected);
});

test("8 KiB of attributes are taken", async () => {
  const call = tenant();
  const attributes = { a: "x".repeat(8100) };
  await invoke(service, upsertUser, { user: { id: "eve", attributes } }, call);
  expect((await invoke(service, getUser, { id: "eve" }, call)).user?.attributes).toEqual(attributes);
});

test("a user token gets itself by naming nobody", async () => {
  const call = tenant();
  await invoke(service, upsertUser, { user: { id: "ann", displayName: "Ann" } }, call);
  const own = fakeCall({ tenantId: call.tenantId, principal: userOf(call.tenantId, "ann") });
  expect((await invoke(service, getUser, {}, own)).user?.displayName).toBe("Ann");
});

test("lists give every user once, in the order of ids, and those of a role", async () => {
  const call = tenant();
  for (let n = 0; n < 25; n++) {
    const roles = n % 3 === 0 ? ["third"] : [];
    await invoke(service, upsertUser, { user: { id: `u${String(n).padStart(2, "0")}`, roles } }, call);
  }
  const all = async (role: string, pageSize: number) => {
    const ids: string[] = [];
    for (let pageToken = "", pages = 0; pages === 0 || pageToken !== ""; pages++) {
      const page = await invoke(service, listUsers, { role, pageSize, pageToken }, call);
      ids.push(...page.users.map((user) => user.id));
      pageToken = page.nextPageToken;
      if (pageToken !== "") expect(page.users.length).toBe(pageSize);
    }
    return ids;
  };
  const everyone = Array.from({ length: 25 }, (_, n) => `u${String(n).padStart(2, "0")}`);
  expect(await all("", 7)).toEqual(everyone);
  expect(await all("", 5)).toEqual(everyone);
  const third = everyone.filter((_, n) => n % 3 === 0);
  expect(await all("third", 4)).toEqual(third);
  expect(await all("nobody", 4)).toEqual([]);
});

test("a page token is good for its tenant and filter only", async () => {
  const call = tenant();
  for (const id of ["a", "b"]) await invoke(service, upsertUser, { user: { id } }, call);
  const { nextPageToken } = await invoke(service, listUsers, { pageSize: 1 }, call);
  for (const [request, by] of [
    [{ pageToken: nextPageToken, role: "staff" }, call],
    [{ pageToken: nextPageToken }, tenant()],
    [{ pageToken: `${nextPageToken}x` }, call],
  ] as const) {
    expect((await faultOf(invoke(service, listUsers, request, by))).reason).toBe(ErrorReason.INVALID_PAGE_TOKEN);
  }
});

test("another tenant's users do not exist", async () => {
  const [one, other] = [tenant(), tenant()];
  await invoke(service, upsertUser, { user: { id: "ann", roles: ["staff"] } }, one);
  expect((await faultOf(invoke(service, getUser, { id: "ann" }, other))).reason).toBe(ErrorReason.NOT_FOUND);
  expect((await invoke(service, listUsers, { role: "staff" }, other)).users).toEqual([]);
  await invoke(service, deleteUser, { id: "ann" }, other);
  expect((await invoke(service, getUser, { id: "ann" }, one)).user?.id).toBe("ann");
});

test("24 concurrent upserts of one user create one, with the roles of the last", async () => {
  const call = tenant();
  for (let round = 0; round < 5; round++) {
    const id = `racer-${round}`;
    const answers = await Promise.all(
      Array.from({ length: 24 }, (_, n) =>
        invoke(service, upsertUser, { user: { id, roles: [`r${n % 7}`, `s${n % 5}`] } }, call),
      ),
    );
    expect(answers.filter((answer) => answer.created)).toHaveLength(1);
    expect(await disagreeing(call.tenantId)).toEqual([]);
  }
});

test("roles agree whatever is upserted, updated and deleted at once", async () => {
  const call = tenant();
  const ids = ["a", "b", "c"];
  for (let round = 0; round < 8; round++) {
    await Promise.all(
      Array.from({ length: 18 }, (_, n) => {
        const user = { id: ids[n % 3] ?? "", roles: [`r${n}`, "all"] };
        if (n % 6 === 5) return invoke(service, deleteUser, { id: user.id }, call);
        if (n % 2 === 0) return invoke(service, upsertUser, { user }, call);
        return invoke(service, updateUser, { user }, call).catch((error: unknown) => {
          if ((error as { reason?: unknown }).reason !== ErrorReason.NOT_FOUND) throw error;
        });
      }),
    );
    expect(await disagreeing(call.tenantId)).toEqual([]);
  }
});

test("caches are told before a profile changes, and after it, also when it failed", async () => {
  const call = tenant();
  const told: string[] = [];
  const telling = userService({
    ...setup,
    membershipChanged: () => undefined,
    aboutToChange: async ({ userId }) => void told.push(`before ${userId}`),
    invalidations: { ...invalidations, publish: (kind, _, userId) => void told.push(`${kind} ${userId}`) },
    reconcile: () => Promise.reject(new Error("it failed")),
  });
  await invoke(service, upsertUser, { user: { id: "ann", timeZone: "UTC" } }, call);
  const moved = { id: "ann", timeZone: "Asia/Tokyo" };
  await expect(invoke(telling, upsertUser, { user: moved }, call)).rejects.toThrow("it failed");
  await expect(invoke(telling, updateUser, { user: moved }, call)).rejects.toThrow("it failed");
  expect(told).toEqual(["before ann", "user ann", "before ann", "user ann"]);
});
