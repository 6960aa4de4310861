// One conversation about every method of the contract, had over every transport, each in a world of its own: all hear the
// same codes, messages, details and answers.
import type { JsonObject, JsonValue } from "@bufbuild/protobuf";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { ACCESS_RULES } from "#src/rpc/access-rules.ts";
import { sinkFolder } from "../escalation/setup.ts";
import { METHODS } from "../rpc/fakes.ts";
import { platformOfFile } from "../support/platform.ts";
import { ANSWERED, conversation, type Row } from "./conversation.ts";
import { special } from "./special.ts";
import { type Heard, heard } from "./transcript.ts";
import { everyTransport, type TransportCaller } from "./transports.ts";
import { makeWorld } from "./world.ts";

const sink = await sinkFolder();
const node = await platformOfFile({
  roles: ["api", "stream", "worker"],
  // A user of each world has one already.
  env: { ...sink.env, POSTHORN_DEADLINES_MAX_PER_USER: "1" },
});
const portOf = (url: string) => Number(new URL(url.replace(/^(?!http)/, "http://")).port);
const [first, ...others] = everyTransport({
  grpc: { port: portOf(node.platform.grpcUrl) },
  http: { port: portOf(node.platform.httpUrl) },
});
// gRPC-Web in JSON is the one that nobody's client speaks of itself.
const transports = [first, ...others.filter(({ name }) => !name.startsWith("grpc-web json"))];
afterAll(async () => {
  for (const each of transports) await each[Symbol.asyncDispose]();
});

type Transcript = { transport: string; rows: Map<string, Heard> };
let transcripts: Transcript[];
const nameOf = ({ method, name }: Row) => `${method.parent.name}.${method.name}: ${name}`;

beforeAll(async () => {
  const speakers = await Promise.all(
    transports.map(async (transport) => {
      const world = await makeWorld(node);
      const known = new Map(Object.entries(world.ids).map(([name, id]) => [id, `<the ${name}>`]));
      const [refusals = [], ...answers] = conversation(world);
      const parts = [[...refusals, ...special(world)], ...answers];
      return { transport, known, parts, rows: new Map<string, Heard>() };
    }),
  );
  // Part by part, so that lists of what all worlds share are equally long.
  for (let part = 0; part < (speakers[0]?.parts.length ?? 0); part++) {
    await Promise.all(
      speakers.map(async ({ transport, known, parts, rows }) => {
        for (const row of parts[part] ?? []) {
          if (row.method.methodKind === "bidi_streaming" && !transport.bidi) continue;
          const isShared = row.method.name === "ListTenants";
          const what = heard(row.method, await call(transport, row), isShared ? new Map() : known);
          rows.set(nameOf(row), isShared ? kindsOf(what) : what);
        }
      }),
    );
  }
  transcripts = speakers.map(({ transport, rows }) => ({ transport: transport.name, rows }));
}, 300_000);

/** The list of all tenants grows while it is read by others: what kinds of entries it has is the same for all. */
function kindsOf({ messages, problem }: Heard): Heard {
  const kinds = (list: readonly JsonValue[]) =>
    [...new Set(list.map((entry) => JSON.stringify(entry).replace(/<id \d+>/g, "<id>")))].sort();
  return {
    messages: messages.map((message) =>
      Object.fromEntries(
        Object.entries(message as JsonObject).map(([name, value]) => [
          name,
          Array.isArray(value) ? kinds(value) : value,
        ]),
      ),
    ),
    problem,
  };
}

/** Streams without an end are left when they have caught up. */
async function call(transport: TransportCaller, { method, request, authorization, headers }: Row) {
  const leaving = new AbortController();
  const answer = await transport.call(method, request as Record<string, unknown>, {
    ...(authorization === undefined ? {} : { authorization }),
    headers,
    signal: leaving.signal,
    onMessage: (message) => {
      const event = Reflect.get(message, "event") as { case?: string } | undefined;
      if (event?.case === "caughtUp") leaving.abort();
    },
  });
  return leaving.signal.aborted ? { ...answer, problem: undefined } : answer;
}

test("every method that is served is in the table", () => {
  expect(METHODS.map((method) => `${method.parent.typeName}.${method.name}`).toSorted()).toEqual(
    Object.keys(ACCESS_RULES).toSorted(),
  );
});

describe.each(METHODS.map((method) => [`${method.parent.name}.${method.name}`] as const))("%s", (name) => {
  test("is answered", () => {
    const answer = transcripts[0]?.rows.get(`${name}: ${ANSWERED}`);
    expect(answer).toMatchObject({ problem: null });
    expect(answer?.messages.length).toBeGreaterThan(0);
  });

  test("answers and refuses the same over every transport", () => {
    const [model, ...rest] = transcripts.map(({ transport, rows }) => ({
      transport,
      rows: Object.fromEntries([...rows].filter(([row]) => row.startsWith(`${name}: `))),
    }));
    expect(Object.keys(model?.rows ?? {}).length).toBeGreaterThanOrEqual(3);
    for (const { transport, rows } of rest) {
      if (Object.keys(rows).length > 0) expect(rows, transport).toEqual(model?.rows);
    }
  });
});

test("the escalation that is cancelled goes on until then", () => {
  const answer = transcripts[0]?.rows.get(`SendService.CancelEscalation: ${ANSWERED}`);
  expect(answer?.messages).toEqual([{ cancelled: true }]);
});

test("the table holds the refusals that callers meet", () => {
  const reasons = new Set<string>();
  for (const { problem } of transcripts[0]?.rows.values() ?? []) {
    const [, reason] = /"reason":"(\w+)"/.exec(JSON.stringify(problem)) ?? [];
    if (problem !== null) reasons.add(reason ?? JSON.stringify(problem));
  }
  expect([...reasons].toSorted()).toEqual([
    "ALREADY_EXISTS",
    "CALLER_NOT_ALLOWED",
    "CREDENTIAL_INVALID",
    "CREDENTIAL_MISSING",
    "ETAG_MISMATCH",
    "IDEMPOTENCY_KEY_REUSED",
    "INVALID_FIELD_MASK",
    "INVALID_PAGE_TOKEN",
    "INVALID_REQUEST",
    "LIMIT_OF_CALL",
    "NOTIFICATION_NOT_DELIVERED",
    "NOTIFICATION_NOT_OPEN",
    "NOT_FOUND",
    "PAYLOAD_INCOMPATIBLE",
    "SCOPE_MISSING",
    "TOO_MANY_RESOURCES",
  ]);
});

test("what is wrong deep inside a request is named by its path", () => {
  const rows = transcripts[0]?.rows;
  const fieldsOf = (row: string) =>
    [...JSON.stringify(rows?.get(row)?.problem).matchAll(/"field":"(.*?)"/g)].map(([, field]) => field);
  expect(fieldsOf("SendService.Send: everything wrong")).toEqual(
    expect.arrayContaining(["to.user_ids[0]", "channels[1]", "content.actions[0].id"]),
  );
  expect(fieldsOf("PreferencesService.UpdatePreferences: everything wrong")).toEqual(
    expect.arrayContaining(["preferences.do_not_disturb.periods[1].start_time"]),
  );
});
