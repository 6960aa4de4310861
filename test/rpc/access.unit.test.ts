import { create } from "@bufbuild/protobuf";
import { describe, expect, test } from "vitest";
import { GetTenantRequestSchema, Scope } from "#gen/posthorn/v1/admin_service_pb.ts";
import { UpdatePreferencesRequestSchema } from "#gen/posthorn/v1/preferences_service_pb.ts";
import { BroadcastRequestSchema, StreamService } from "#gen/posthorn/v1/stream_service_pb.ts";
import { Code } from "#src/errors.ts";
import { accessOf, checkAccess, nameOf, targetUser } from "#src/rpc/access.ts";
import { ACCESS_RULES, type AccessRule } from "#src/rpc/access-rules.ts";
import type { Principal } from "#src/rpc/call.ts";
import { ALL_SCOPES, fakePipeline, fakeServices, METHODS, TENANT } from "./fakes.ts";

const rules: Readonly<Record<string, AccessRule>> = ACCESS_RULES;
const operator = (tenantId?: string): Principal => ({ kind: "operator", tenantId });
const user: Principal = { kind: "user", tenantId: TENANT, userId: "u1", issuedAt: undefined, expiresAt: new Date() };
const key: Principal = {
  kind: "key",
  tenantId: TENANT,
  keyId: "k1",
  scopes: new Set(ALL_SCOPES),
  expiresAt: undefined,
};
const access = (name: string) => {
  const method = METHODS.find((each) => nameOf(each) === `posthorn.v1.${name}`)!;
  return accessOf(method, rules[nameOf(method)]!);
};

describe("checkAccess", () => {
  test("is content with the contract", () => checkAccess(rules, fakeServices()));

  test("names every method without a rule, rule without a method, field without existence, method without handler", () => {
    const { "posthorn.v1.SendService.Send": _, ...others } = rules;
    const broken: Record<string, AccessRule> = {
      ...others,
      "posthorn.v1.SendService.Sendd": { key: Scope.SEND },
      "posthorn.v1.UserService.GetUser": { user: { field: "user_id" } },
    };
    const services = fakeServices();
    services[0]!.handlers = { ...services[0]!.handlers, whoAmI: undefined as never };
    const check = () => checkAccess(broken, services);
    expect(check).toThrow("posthorn.v1.SendService.Send has no access rule");
    expect(check).toThrow("the access rule of posthorn.v1.SendService.Sendd has no method");
    expect(check).toThrow("the access rule of posthorn.v1.UserService.GetUser names the field user_id");
    expect(check).toThrow("posthorn.v1.AdminService.WhoAmI has no handler");
  });

  test("stops the process at start", () => {
    expect(() => fakePipeline({ rules: {} })).toThrow("has no access rule");
  });
});

test("every rule lets somebody in, and every request that names a user is kept to that user", () => {
  for (const method of METHODS) {
    const rule = rules[nameOf(method)]!;
    expect([rule.operator, rule.key, rule.user].some((each) => each !== undefined)).toBe(true);
    if (rule.user !== undefined && rule.user !== "any") {
      const refused = access(`${method.parent.name}.${method.name}`);
      const field = method.input.fields.find(({ name }) => name === (rule.user as { field: string }).field)!;
      const other = field.fieldKind === "list" ? ["u1", "u2"] : "u2";
      expect(() => refused.check(user, create(method.input, { [field.localName]: other }))).toThrow(
        expect.objectContaining({ code: Code.NOT_FOUND }),
      );
    }
  }
});

test("only the operator announces to all tenants, and needs no tenant then", () => {
  const { admit, check } = access("StreamService.Broadcast");
  const all = create(BroadcastRequestSchema, { audience: { case: "allTenants", value: true } });
  const one = create(BroadcastRequestSchema, { audience: { case: "tenant", value: true } });
  admit(operator());
  check(operator(), all);
  check(operator(TENANT), one);
  expect(() => check(operator(), one)).toThrow(expect.objectContaining({ code: Code.INVALID_ARGUMENT }));
  expect(() => check(key, all)).toThrow(expect.objectContaining({ code: Code.PERMISSION_DENIED }));
  check(key, one);
});

test("a key gets no other tenant than its own; the operator any", () => {
  const { check } = access("AdminService.GetTenant");
  const other = create(GetTenantRequestSchema, { id: "01890000-0000-7000-8000-00000000000f" });
  expect(() => check(key, other)).toThrow(expect.objectContaining({ code: Code.NOT_FOUND }));
  check(key, create(GetTenantRequestSchema, { id: TENANT }));
  check(operator(), other);
});

test("a key that changes a user's preferences says whose and why", () => {
  const { check } = access("PreferencesService.UpdatePreferences");
  const request = (fields: object) => create(UpdatePreferencesRequestSchema, fields);
  for (const fields of [{}, { userId: "u1" }, { reason: "asked by phone" }])
    expect(() => check(key, request(fields))).toThrow(expect.objectContaining({ code: Code.INVALID_ARGUMENT }));
  check(key, request({ userId: "u1", reason: "asked by phone" }));
  check(user, request({}));
});

test("targetUser is the one who calls, or whom a key names", () => {
  expect(targetUser({ userId: "" }, { principal: user })).toBe("u1");
  expect(targetUser({ userId: "u1" }, { principal: user })).toBe("u1");
  expect(() => targetUser({ userId: "u2" }, { principal: user })).toThrow("no such user");
  expect(targetUser({ userId: "u2" }, { principal: key })).toBe("u2");
  expect(() => targetUser({ userId: "" }, { principal: key })).toThrow("user_id");
});

test("the rule of a stream is that of its service", () => {
  expect(rules[nameOf(StreamService.method.subscribe)]).toMatchObject({ key: Scope.STREAM });
});
