import type { DescMethod, Message } from "@bufbuild/protobuf";
import { MethodOptions_IdempotencyLevel } from "@bufbuild/protobuf/wkt";
import { Scope } from "#gen/posthorn/v1/admin_service_pb.ts";
import { ACCESS_RULES, type AccessRule } from "#src/rpc/access-rules.ts";
import { METHODS } from "../rpc/fakes.ts";
import { type Fill, requestsOf } from "../tenancy/requests.ts";
import { brokenRequest } from "./broken.ts";
import type { World } from "./world.ts";

/** One call of the table. */
export type Row = {
  method: DescMethod;
  /** What is asked, in words; unique among the rows of a method. */
  name: string;
  request: Message | Record<string, unknown>;
  authorization: string | undefined;
  headers: Record<string, string>;
};

/** The name of the row of each method that has to be answered. */
export const ANSWERED = "what can be answered";

const NOBODY = "00000000-0000-4000-8000-000000000000";

/**
 * What is said in every world of every method, in parts that follow each other: what is refused, then what is answered:
 * reading before making, making before changing, changing before taking away.
 */
export function conversation(world: World): Row[][] {
  const parts = [0, CREATING, 2, 3].map((part) => METHODS.filter((method) => weight(method) === part));
  return [
    METHODS.flatMap((method) => refused(method, world)),
    ...parts.map((methods) => methods.flatMap((method) => answered(method, world))),
  ];
}

function answered(method: DescMethod, world: World): Row[] {
  const rule = ruleOf(method);
  const request = whole(method, { ...world.fill, ...OTHERWISE[method.name] }, idFor(method, world));
  const rows = [row(method, ANSWERED, request, ...best(rule, world))];
  if (rule.user !== undefined && weight(method) === 0) rows.push(row(method, "a user's own", request, world.as.user));
  return rows;
}

function refused(method: DescMethod, world: World): Row[] {
  const may = best(ruleOf(method), world);
  const rows = [
    row(method, "nothing in it", {}, ...may),
    row(method, "everything wrong", brokenRequest(method.input), ...may),
  ];
  if (weight(method) !== CREATING)
    rows.push(row(method, "what does not exist", whole(method, strangers(world.fill), NOBODY), ...may));
  if (EXAMPLES.has(method)) rows.push(...refusedCallers(method, world));
  return rows;
}

/**
 * Who may call is asked before anything of a request is read, by the same code for every method: on the wire the first
 * method of each service and those that stream stand for all. (That it is asked of all has a test of its own.)
 */
const EXAMPLES = new Set(METHODS.filter((each) => each.methodKind !== "unary" || each === each.parent.methods[0]));

function refusedCallers(method: DescMethod, world: World): Row[] {
  const rule = ruleOf(method);
  const request = whole(method, world.fill, idFor(method, world));
  const { key, sendKey, inboxKey, user, operator } = world.as;
  const rows = [
    row(method, "no credential", request, undefined),
    row(method, "a forged credential", request, "Bearer forged"),
  ];
  if (typeof rule.key === "number")
    rows.push(row(method, "a key without the scope", request, rule.key === Scope.SEND ? inboxKey : sendKey));
  if (rule.key === undefined) rows.push(row(method, "a key, which may not", request, key));
  if (rule.user === undefined) rows.push(row(method, "a user, who may not", request, user));
  else rows.push(row(method, "a user about another", whole(method, { ...world.fill, ...BERT }, "bert"), user));
  if (rule.operator === undefined) rows.push(row(method, "the operator, who may not", request, operator));
  if (rule.operator === "tenant") rows.push(row(method, "the operator without a tenant", request, operator));
  return rows;
}

export function row(
  method: DescMethod,
  name: string,
  request: Row["request"],
  authorization: string | undefined,
  headers: Record<string, string> = {},
): Row {
  return { method, name, request, authorization, headers };
}

const CREATING = 1;

function weight(method: DescMethod): number {
  if (method.idempotency === MethodOptions_IdempotencyLevel.NO_SIDE_EFFECTS) return 0;
  if (/^(Create|Upsert|Import|Load|Send|Add|Subscribe|Broadcast)/.test(method.name)) return CREATING;
  return /^(Delete|Revoke|Rotate|Clear|Cancel|Reset)/.test(method.name) ? 3 : 2;
}

function ruleOf(method: DescMethod): AccessRule {
  return ACCESS_RULES[`${method.parent.typeName}.${method.name}` as keyof typeof ACCESS_RULES];
}

/** The credential and headers of one who may. */
function best(rule: AccessRule, { as, tenantId }: World): [string, Record<string, string>] {
  if (rule.key !== undefined) return [as.key, {}];
  if (rule.operator === undefined) return [as.user, {}];
  return [as.operator, rule.operator === "tenant" ? { "posthorn-tenant": tenantId } : {}];
}

/** What a method's name says after its verb is whose `id` it takes, where its whole name does not say so. */
function idFor(method: DescMethod, { ids }: World): string {
  return ids[method.name] ?? ids[method.name.replace(/^[A-Z][a-z]+/, "").replace(/s$/, "")] ?? "";
}

/** A request with everything in it that goes together. */
function whole(method: DescMethod, fill: Fill, id: string): Message {
  const requests = requestsOf(method, { ...fill, id });
  const found = requests.find((each) => !("ids" in each && "filter" in each && each.filter !== undefined));
  if (found === undefined) throw new Error(`${method.name} has no request`);
  return found;
}

const BERT: Fill = { user_id: "bert", user_ids: ["bert"] };

/** What has to be filled in differently for the answer to be one. */
const OTHERWISE: Readonly<Record<string, Fill>> = {
  CreateType: { key: "fresh" },
  CreateSchedule: { key: "fresh" },
  PreviewSend: { topics: [], roles: [] },
  UpdateNotification: { local_schedule_time: "" },
  // Of nobody, because others are about what waits for alice and bert.
  UnsubscribeAll: { user_id: "carol" },
};

/** The same with names of things that are not there. */
function strangers(fill: Fill): Fill {
  return {
    ...fill,
    ...Object.fromEntries(["user_id", "notification_id", "fanout_id"].map((name) => [name, NOBODY])),
    ...Object.fromEntries(["ids", "user_ids", "notification_ids"].map((name) => [name, [NOBODY]])),
    key: "nothing",
    topic: "nothing",
  };
}
