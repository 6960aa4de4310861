import type { DescMethod } from "@bufbuild/protobuf";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { Scope } from "#gen/posthorn/v1/admin_service_pb.ts";
import { Code } from "#src/errors.ts";
import { nameOf } from "#src/rpc/access.ts";
import { ACCESS_RULES, type AccessRule } from "#src/rpc/access-rules.ts";
import { type Answer, type Caller, callers, reasonOf } from "./callers.ts";
import { METHODS, startPorts, TENANT } from "./fakes.ts";

/** Every RPC × every kind of credential × every protocol. What is expected is derived from the rules' meaning. */

let ports: Awaited<ReturnType<typeof startPorts>>;
let clients: Caller[];

beforeAll(async () => {
  ports = await startPorts();
  clients = callers(ports);
});
afterAll(async () => {
  for (const client of clients) await client[Symbol.asyncDispose]();
  await ports[Symbol.asyncDispose]();
});

const ruleOf = (method: DescMethod): AccessRule => (ACCESS_RULES as Record<string, AccessRule>)[nameOf(method)] ?? {};
const scopeName = (scope: number) => Object.entries(Scope).find(([, value]) => value === scope)?.[0] ?? "";
const told = (answer: Answer) => `${answer.problem?.code ?? 0} ${reasonOf(answer) ?? "OK"}`;
const refused = (code: number, reason: string) => `${code} ${reason}`;

/** HTTP/1.1 cannot stream both ways. */
const speaking = (method: DescMethod) =>
  clients.filter(({ name }) => method.methodKind !== "bidi_streaming" || !name.endsWith("http/1.1"));

async function everyProtocol(method: DescMethod, expected: string, options: object, request = {}): Promise<void> {
  const able = speaking(method);
  const answers = await Promise.all(able.map((client) => client.call(method, request, options)));
  expect(Object.fromEntries(able.map(({ name }, i) => [name, told(answers[i]!)]))).toEqual(
    Object.fromEntries(able.map(({ name }) => [name, expected])),
  );
}

/** Let in, whatever is then said about the empty request. */
async function everyProtocolAdmits(method: DescMethod, options: object, request = {}): Promise<void> {
  for (const client of speaking(method)) {
    const answer = await client.call(method, request, options);
    expect(["0 OK", refused(Code.INVALID_ARGUMENT, "INVALID_REQUEST")]).toContain(told(answer));
  }
}

describe.each(METHODS.map((method) => [nameOf(method), method] as const))("%s", (_, method) => {
  const rule = ruleOf(method);

  test("refuses calls without a credential", () =>
    everyProtocol(method, refused(Code.UNAUTHENTICATED, "CREDENTIAL_MISSING"), {}));

  test("refuses malformed and forged credentials", async () => {
    for (const authorization of ["Basic abc", "Bearer", "Bearer forged", ""])
      await everyProtocol(
        method,
        refused(Code.UNAUTHENTICATED, "CREDENTIAL_INVALID"),
        // An empty header value is not sent by every client.
        { authorization: authorization || "Bearer x" },
      );
  });

  test("refuses expired credentials", () =>
    everyProtocol(method, refused(Code.UNAUTHENTICATED, "CREDENTIAL_EXPIRED"), { authorization: "Bearer expired" }));

  test("lets in API keys with its scope only", async () => {
    if (rule.key === undefined) {
      await everyProtocol(method, refused(Code.PERMISSION_DENIED, "CALLER_NOT_ALLOWED"), {
        authorization: "Bearer key:*",
      });
      return;
    }
    if (rule.key === "any") return everyProtocolAdmits(method, { authorization: "Bearer key:SEND" });
    const right = scopeName(rule.key);
    const wrong = Object.keys(Scope).filter((name) => name !== right && name !== "UNSPECIFIED");
    await everyProtocol(method, refused(Code.PERMISSION_DENIED, "SCOPE_MISSING"), {
      authorization: `Bearer key:${wrong.join(",")}`,
    });
    await everyProtocolAdmits(method, { authorization: `Bearer key:${right}` });
  });

  test("lets in users for themselves only", async () => {
    const authorization = "Bearer user:alice";
    if (rule.user === undefined)
      return everyProtocol(method, refused(Code.PERMISSION_DENIED, "CALLER_NOT_ALLOWED"), { authorization });
    await everyProtocolAdmits(method, { authorization });
    if (rule.user === "any") return;
    const field = method.input.fields.find(({ name }) => name === (rule.user as { field: string }).field)!;
    const naming = (user: string) => ({ [field.localName]: field.fieldKind === "list" ? [user] : user });
    await everyProtocol(method, refused(Code.NOT_FOUND, "NOT_FOUND"), { authorization }, naming("bob"));
    await everyProtocolAdmits(method, { authorization }, naming("alice"));
  });

  test("asks API keys to name the user", async () => {
    if (rule.keyMustSet === undefined || rule.key === undefined || rule.key === "any") return;
    await everyProtocol(method, refused(Code.INVALID_ARGUMENT, "INVALID_REQUEST"), {
      authorization: `Bearer key:${scopeName(rule.key)}`,
    });
  });

  test("lets in the operator where it is the operator's, with the tenant named where it needs one", async () => {
    const authorization = "Bearer operator";
    const headers = { "posthorn-tenant": TENANT };
    if (rule.operator === undefined)
      return everyProtocol(method, refused(Code.PERMISSION_DENIED, "CALLER_NOT_ALLOWED"), { authorization, headers });
    await everyProtocolAdmits(method, { authorization, headers });
    if (rule.operator === "tenant")
      await everyProtocol(method, refused(Code.INVALID_ARGUMENT, "INVALID_REQUEST"), { authorization });
  });
});
