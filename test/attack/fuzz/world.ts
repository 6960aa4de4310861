import type { DescMethod, Message } from "@bufbuild/protobuf";
import { createClient } from "@connectrpc/connect";
import { createConnectTransport } from "@connectrpc/connect-node";
import { AdminService, Scope, Tenant_State } from "#gen/posthorn/v1/admin_service_pb.ts";
import { ALL_SCOPES } from "../../support/call.ts";
import { textsIn } from "./judge.ts";
import { makeOneOfEach, OWNER } from "./made.ts";
import type { Pool, Resolve } from "./shape.ts";
import type { Caller } from "./steps.ts";

/** Where the platform under attack listens. */
export type Target = { grpcUrl: string; httpUrl: string; operatorKey: string };

/** Who calls, and what earlier answers have named. */
export type World = {
  readonly resolve: Resolve;
  headersOf(caller: Caller): Record<string, string>;
  /** Remembers ids, page tokens, cursors and etags of an answer. */
  learn(method: DescMethod, message: Message): void;
  /** Makes the credentials good again: calls may have revoked them, or suspended the tenant. */
  mend(): Promise<void>;
};

const USERS = [
  "u1",
  "u2",
  "u3",
  "*",
  ">",
  ".",
  "a.b",
  "a:b",
  "%",
  "__proto__",
  "constructor",
  "{a}",
  "'",
  "\\",
  '"',
  "$1",
];
const KEYS = ["general", "news", "alerts", "orders", "constructor", "toString", "hasOwnProperty", "x"];
const UUID = /^[0-9a-f]{8}-[0-9a-f-]{27}$/;
const REMEMBERED = 200;

export async function openWorld({ httpUrl, operatorKey }: Target): Promise<World> {
  const admin = createClient(AdminService, createConnectTransport({ baseUrl: httpUrl, httpVersion: "1.1" }));
  const asOperator = (tenantId?: string) => ({
    headers: {
      authorization: `Bearer ${operatorKey}`,
      ...(tenantId === undefined ? {} : { "posthorn-tenant": tenantId }),
    },
  });
  const known: Record<Pool, string[]> = {
    id: ["01980000-0000-7000-8000-000000000000"],
    user: USERS,
    key: KEYS,
    page_token: ["AAAAAAAAAAAAAAAAWyJhIl0"],
    cursor: ["AQAAAAAAAAAAAAAAAA"],
    etag: ["1"],
  };
  /** Never named in requests: without them nothing more could be tried. */
  const kept = new Set<string>();
  const newTenant = async (displayName: string) => {
    const { tenant } = await admin.createTenant({ displayName }, asOperator());
    return tenant?.id ?? "";
  };
  const newKey = async (tenantId: string, scopes: readonly Scope[]) => {
    const { apiKey, secret } = await admin.createApiKey(
      { displayName: "fuzz", scopes: [...scopes] },
      asOperator(tenantId),
    );
    kept.add(apiKey?.id ?? "");
    return `Bearer ${secret}`;
  };
  const [tenantId, otherId] = [await newTenant("Fuzz"), await newTenant("Another")];
  kept.add(tenantId).add(otherId);
  const credentials = new Map<Caller, string>();

  const mend = async () => {
    const good = await admin.whoAmI({}, { headers: { authorization: credentials.get("user") ?? "" } }).then(
      () => true,
      () => false,
    );
    if (good) return;
    await admin.updateTenant({ id: tenantId, state: Tenant_State.ACTIVE }, asOperator());
    credentials.set("key", await newKey(tenantId, [...ALL_SCOPES]));
    credentials.set("bare", await newKey(tenantId, [Scope.INBOX]));
    credentials.set("other", await newKey(otherId, [...ALL_SCOPES]));
    const { token } = await admin.createUserToken({ userId: "u1" }, asOperator(tenantId));
    credentials.set("user", `Bearer ${token}`);
  };
  await mend();
  const made: Readonly<Record<string, readonly string[]>> = {
    ...(await makeOneOfEach(httpUrl, credentials.get("key") ?? "", credentials.get("user") ?? "")),
    tenant: [await newTenant("Spare")],
  };
  /** What there is of its kind, two times of three, and whatever else is known the third. */
  const resolve: Resolve = (pool, at, of) => {
    const kind = of === undefined ? [] : (made[of] ?? []);
    const [third, n] = [at % 3, Math.floor(at / 3)];
    if (third !== 0 && kind.length > 0) return kind[n % kind.length] ?? "";
    if (third !== 0 && pool === "user") return OWNER;
    return known[pool][n % known[pool].length] ?? "";
  };

  return {
    mend,
    resolve,
    headersOf(caller) {
      switch (caller) {
        case "none":
          return {};
        case "operator":
          return asOperator().headers;
        case "operator-in-tenant":
          return asOperator(tenantId).headers;
        default:
          return { authorization: credentials.get(caller) ?? "" };
      }
    },
    learn(method, message) {
      for (const [name, text] of textsIn(method.output, message)) {
        const pool = poolOf(name, text);
        if (pool === undefined || text === "" || kept.has(text) || known[pool].includes(text)) continue;
        known[pool].push(text);
        // The first stays, so that there is always one that is not there.
        if (known[pool].length > REMEMBERED) known[pool].splice(1, 1);
      }
    },
  };
}

function poolOf(field: string, text: string): Pool | undefined {
  if (UUID.test(text)) return "id";
  if (field === "next_page_token") return "page_token";
  return field === "cursor" || field === "etag" ? field : undefined;
}
