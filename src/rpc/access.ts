import type { DescMessage, DescMethod, Message } from "@bufbuild/protobuf";
import { type Scope, ScopeSchema } from "#gen/posthorn/v1/admin_service_pb.ts";
import { ErrorReason } from "#gen/posthorn/v1/error_pb.ts";
import { Fault, invalidField, invalidRequest, notFound } from "#src/errors.ts";
import { textFaults } from "#src/store/storable.ts";
import type { AccessRule } from "./access-rules.ts";
import type { Principal, Service } from "./call.ts";

/** The header in which the operator names a tenant. */
export const TENANT_HEADER = "posthorn-tenant";

/** A rule, made ready for one method. Both throw a Fault when the call is refused. */
export type Access = {
  /** By who calls, before anything of the request is read. */
  admit(principal: Principal): void;
  /** By what the request names: nobody gets at another user or tenant. Before validation, so that refusals come first. */
  check(principal: Principal, request: Message): void;
};

const REQUIRED_OF_KEYS = "is required of API keys";

/**
 * The user a request is about: the one it names, or the user who calls. Throws NOT_FOUND when a user names another, and
 * INVALID_REQUEST when anybody else names nobody. The access rules say the same before the handler runs; this holds
 * where a method's rule forgets to.
 */
export function targetUser(request: { readonly userId: string }, call: { readonly principal: Principal }): string {
  const { principal } = call;
  if (principal.kind !== "user") {
    if (request.userId === "") throw invalidField("user_id", REQUIRED_OF_KEYS);
    return request.userId;
  }
  if (!names(request.userId, principal.userId)) throw notFound("user");
  return principal.userId;
}

/** Users need no reason for what concerns themselves; everybody else does (it stands in the audit log). */
export function reasonOf({ reason }: { reason: string }, { principal }: { readonly principal: Principal }): string {
  if (principal.kind !== "user" && reason.trim() === "") {
    throw invalidField("reason", REQUIRED_OF_KEYS);
  }
  const fields = textFaults({ reason });
  if (fields.length > 0) throw invalidRequest(fields);
  return reason;
}

/** Whether the caller has a scope. False for everything but API keys. */
export function hasScope(principal: Principal, scope: Scope): boolean {
  return principal.kind === "key" && principal.scopes.has(scope);
}

/** SCOPE_MISSING, naming the scope. */
export function scopeMissing(scope: Scope): Fault {
  const name = ScopeSchema.value[scope]?.name ?? "";
  return new Fault(ErrorReason.SCOPE_MISSING, {
    message: `The API key lacks the scope ${name}.`,
    metadata: { scope: name },
  });
}

/**
 * Throws unless every method of `services` has exactly one rule and every rule a method, naming all that is wrong.
 * Called at start: a method that nobody thought about must not be served.
 */
export function checkAccess(rules: Readonly<Record<string, AccessRule>>, services: readonly Service[]): void {
  const methods = services.flatMap(({ descriptor }) => descriptor.methods);
  const names = new Set(methods.map(nameOf));
  const problems = [
    ...[...names].filter((name) => !Object.hasOwn(rules, name)).map((name) => `${name} has no access rule`),
    ...Object.keys(rules)
      .filter((name) => !names.has(name))
      .map((name) => `the access rule of ${name} has no method`),
    ...methods.flatMap((method) => brokenFields(method, rules[nameOf(method)] ?? {})),
    ...services.flatMap(({ descriptor, handlers }) =>
      descriptor.methods
        .filter((method) => typeof handlers[method.localName] !== "function")
        .map((method) => `${nameOf(method)} has no handler`),
    ),
  ];
  if (problems.length > 0) throw new Error(`Calls cannot be served: ${problems.join("; ")}.`);
}

export function nameOf(method: DescMethod): string {
  return `${method.parent.typeName}.${method.name}`;
}

function brokenFields(method: DescMethod, rule: AccessRule): string[] {
  const named = [
    ...(typeof rule.user === "object" ? [rule.user.field] : []),
    ...(rule.keyMustSet ?? []),
    ...(rule.ownTenantField === undefined ? [] : [rule.ownTenantField]),
    ...(rule.operatorOnlyField === undefined ? [] : [rule.operatorOnlyField]),
  ];
  return named
    .filter((name) => !method.input.fields.some((field) => field.name === name))
    .map((name) => `the access rule of ${nameOf(method)} names the field ${name}, which does not exist`);
}

export function accessOf(method: DescMethod, rule: AccessRule): Access {
  const read = (name: string) => reader(method.input, name);
  const userField = typeof rule.user === "object" ? read(rule.user.field) : undefined;
  const mustSet = (rule.keyMustSet ?? []).map((name) => ({ name, value: read(name) }));
  const tenantField = rule.ownTenantField === undefined ? undefined : read(rule.ownTenantField);
  const operatorField = rule.operatorOnlyField === undefined ? undefined : read(rule.operatorOnlyField);
  return {
    admit(principal) {
      switch (principal.kind) {
        case "operator":
          if (rule.operator === undefined) throw notAllowed("The operator may not make this call. Use an API key.");
          if (operatorField === undefined) needsTenant(rule, principal.tenantId);
          return;
        case "key":
          if (rule.key === undefined) throw notAllowed("API keys may not make this call.");
          if (rule.key !== "any" && !principal.scopes.has(rule.key)) throw scopeMissing(rule.key);
          return;
        case "user":
          if (rule.user === undefined) throw notAllowed("User tokens may not make this call.");
          return;
        default:
          return principal satisfies never;
      }
    },
    check(principal, request) {
      if (operatorField !== undefined) {
        const asks = !isEmpty(operatorField(request));
        if (asks && principal.kind !== "operator")
          throw notAllowed(`${rule.operatorOnlyField}: only the operator may set it.`);
        if (!asks && principal.kind === "operator") needsTenant(rule, principal.tenantId);
      }
      if (principal.kind === "user") {
        if (userField !== undefined && !names(userField(request), principal.userId)) throw notFound("user");
      } else if (principal.kind === "key") {
        for (const { name, value } of mustSet) if (isEmpty(value(request))) throw invalidField(name, REQUIRED_OF_KEYS);
      }
      if (tenantField !== undefined && principal.kind !== "operator")
        if (!names(tenantField(request), principal.tenantId)) throw notFound("tenant");
    },
  };
}

function notAllowed(message: string): Fault {
  return new Fault(ErrorReason.CALLER_NOT_ALLOWED, { message });
}

function needsTenant(rule: AccessRule, tenantId: string | undefined): void {
  if (rule.operator === "tenant" && tenantId === undefined)
    throw invalidField(TENANT_HEADER, "name the tenant in this request header");
}

/** Empty, or nothing but `id`. */
function names(value: unknown, id: string): boolean {
  if (Array.isArray(value)) return value.every((item) => item === id);
  return value === "" || value === undefined || value === id;
}

function isEmpty(value: unknown): boolean {
  return value === undefined || value === "" || value === false || (Array.isArray(value) && value.length === 0);
}

/** Reads a field of a message by its proto name, members of a oneof included. */
function reader(message: DescMessage, name: string): (request: Message) => unknown {
  const field = message.fields.find((each) => each.name === name);
  if (field === undefined) return () => undefined;
  const local = field.localName;
  const { oneof } = field;
  if (oneof === undefined) return (request) => Reflect.get(request, local);
  return (request) => {
    const chosen = Reflect.get(request, oneof.localName) as { case?: string; value?: unknown };
    return chosen.case === local ? chosen.value : undefined;
  };
}
