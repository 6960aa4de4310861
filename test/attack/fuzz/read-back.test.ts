import {
  create,
  type DescMessage,
  equals,
  fromBinary,
  fromJsonString,
  type Message,
  toBinary,
} from "@bufbuild/protobuf";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { type Content, ContentSchema } from "#gen/posthorn/v1/notification_pb.ts";
import { PreferencesSchema } from "#gen/posthorn/v1/preferences_service_pb.ts";
import { TopicSchema } from "#gen/posthorn/v1/topic_service_pb.ts";
import { NotificationTypeSchema } from "#gen/posthorn/v1/type_service_pb.ts";
import { UserSchema } from "#gen/posthorn/v1/user_service_pb.ts";
import { METHODS } from "../../support/contract.ts";
import { type Clients, platformOfFile } from "../../support/platform.ts";
import { textsIn } from "./judge.ts";
import { messages } from "./messages.ts";
import { shapeToBinary } from "./to-binary.ts";

// What is accepted is read back as it was given, in binary and in JSON, whatever text or numbers the contract allows.

const node = await platformOfFile({ roles: ["api", "stream", "worker"] });
const { key } = node;
const seed = Number(process.env.POSTHORN_FUZZ_SEED ?? Math.floor(Math.random() * 2 ** 31));
const options = { seed, numRuns: Number(process.env.POSTHORN_FUZZ_RUNS ?? 15), endOnFailure: false };

/** Messages of the contract that break no rule of it; a few are refused for what rules cannot say. */
function valid<D extends DescMessage>(desc: D): fc.Arbitrary<Message> {
  const names: Record<string, string> = { user: "u", key: "general" };
  return messages(desc, "valid").map((shape) =>
    fromBinary(
      desc,
      shapeToBinary(shape, (pool) => names[pool] ?? "", Date.now()),
    ),
  );
}

/** Undefined when it was refused as invalid, which is the platform's right; anything else is a defect. */
async function accepted<T>(call: Promise<T>): Promise<T | undefined> {
  try {
    return await call;
  } catch (error) {
    if ((error as { code?: number }).code === 3) return undefined;
    throw error;
  }
}

async function overJson(path: string, request: object, desc: DescMessage): Promise<Message> {
  const response = await fetch(`${node.platform.httpUrl}/posthorn.v1.${path}`, {
    method: "POST",
    headers: { "content-type": "application/json", authorization: `Bearer ${node.tenant.apiKey}` },
    body: JSON.stringify(request),
  });
  return fromJsonString(desc, await response.text());
}

function same<D extends DescMessage>(desc: D, a: Message | undefined, b: Message | undefined): void {
  const [one, other] = [a ?? create(desc), b ?? create(desc)];
  expect(
    equals(desc, one as never, other as never),
    `${JSON.stringify(text(one))}\n${JSON.stringify(text(other))}`,
  ).toBe(true);
}

const text = (message: unknown) =>
  JSON.parse(JSON.stringify(message, (_, value) => (typeof value === "bigint" ? String(value) : value)));
const method = (name: string) => METHODS.find((each) => each.name === name)?.output ?? UserSchema;
let count = 0;
let stored = 0;

describe(`what is accepted is read back (POSTHORN_FUZZ_SEED=${seed})`, () => {
  test("a user", async () => {
    await fc.assert(
      fc.asyncProperty(valid(UserSchema), async (message) => {
        const user = create(UserSchema, { ...(message as object), id: `user-${count++}` });
        if ((await accepted(key.users.upsertUser({ user }))) === undefined) return;
        stored++;
        const got = (await key.users.getUser({ id: user.id })).user;
        same(UserSchema, { ...got, createTime: user.createTime, updateTime: user.updateTime } as Message, user);
        const json = (await overJson("UserService/GetUser", { id: user.id }, method("GetUser"))) as unknown as {
          user: Message;
        };
        same(UserSchema, json.user, got);
      }),
      options,
    );
    expect(stored).toBeGreaterThan(0);
  });

  test("a topic, a type", async () => {
    await fc.assert(
      fc.asyncProperty(valid(TopicSchema), valid(NotificationTypeSchema), async (one, other) => {
        const topic = create(TopicSchema, { ...(one as object), key: `topic-${count++}` });
        if ((await accepted(key.topics.upsertTopic({ topic }))) !== undefined) {
          const got = (await key.topics.getTopic({ key: topic.key })).topic;
          expect(got?.description).toBe(topic.description);
        }
        const type = create(NotificationTypeSchema, { ...(other as object), key: `type-${count++}` });
        const made = await accepted(key.types.createType({ type }));
        if (made === undefined) return;
        const { type: read } = await key.types.getType({ key: type.key });
        same(NotificationTypeSchema, read, made.type);
        expect([read?.displayName, read?.description, read?.optIn]).toEqual([
          type.displayName,
          type.description,
          type.optIn,
        ]);
        if (type.defaultTtl) expect(read?.defaultTtl).toEqual(type.defaultTtl);
      }),
      options,
    );
  });

  test("the content of a notification, by its id and in the inbox alike", async () => {
    let sent = 0;
    await fc.assert(
      fc.asyncProperty(valid(ContentSchema), async (message) => {
        // The server's own.
        const { typed: _, ...given } = message as unknown as Content;
        const content = create(ContentSchema, given);
        const userId = `reader-${count++}`;
        const answer = await accepted(
          key.send.send({ to: { userIds: [userId] }, content, waitForDecision: { seconds: 10n } }),
        );
        if (answer === undefined) return;
        sent++;
        const id = answer.results[0]?.notificationId ?? "";
        same(ContentSchema, (await key.send.getNotification({ id })).notification?.content, content);
        const json = (await overJson("SendService/GetNotification", { id }, method("GetNotification"))) as unknown as {
          notification: { content: Message };
        };
        same(ContentSchema, json.notification.content, content);
        same(ContentSchema, (await key.inbox.getEntry({ userId, notificationId: id })).entry?.content, content);
      }),
      // Hardly one in three is taken: of few, none may be.
      { ...options, numRuns: 4 * options.numRuns },
    );
    expect(sent).toBeGreaterThan(0);
  });

  test("preferences", async () => {
    await fc.assert(
      fc.asyncProperty(valid(PreferencesSchema), async (message) => {
        const preferences = message as never;
        const userId = `chooser-${count++}`;
        const changed = await accepted(key.preferences.updatePreferences({ userId, preferences, reason: "test" }));
        if (changed === undefined) return;
        const read = await key.preferences.getPreferences({ userId });
        same(PreferencesSchema, read.preferences, changed.preferences);
        expect(toBinary(PreferencesSchema, read.preferences ?? create(PreferencesSchema)).length).toBeLessThan(100_000);
        await key.preferences.getEffectivePreferences({ userId });
      }),
      options,
    );
  });

  test("every list, page by page to its end", async () => {
    for (const id of Array.from({ length: 8 }, (_, n) => `listed-${n}`)) {
      await key.users.upsertUser({ user: { id, roles: ["reader"] } });
      await key.topics.upsertTopic({ topic: { key: id } });
      await key.topics.addMembers({ key: id, userIds: ["listed-0", id] });
      await key.send.send({ to: { userIds: ["listed-0"] }, content: { title: id }, waitForDecision: { seconds: 10n } });
    }
    const lists: [keyof Clients, string, object][] = [
      ["users", "listUsers", {}],
      ["topics", "listTopics", {}],
      ["topics", "listUserTopics", { userId: "listed-0" }],
      ["types", "listTypes", {}],
      ["send", "listNotifications", {}],
      ["inbox", "listEntries", { userId: "listed-0" }],
      ["admin", "listAuditEntries", {}],
      ["admin", "listApiKeys", {}],
    ];
    for (const [service, name, query] of lists)
      expect([name, await pagesOf(service, name, query)]).toEqual([name, "to its end"]);
  });
});

async function pagesOf(service: keyof Clients, name: string, query: object): Promise<string> {
  const list = Reflect.get(key[service], name) as (request: object) => Promise<Message & { nextPageToken: string }>;
  const output = METHODS.find((each) => each.localName === name)?.output ?? UserSchema;
  const seen = new Set<string>();
  let pageToken = "";
  for (let page = 0; page < 500; page++) {
    const answer = await list({ ...query, pageSize: 3, pageToken });
    const ids = itemsOf(output, answer);
    for (const id of ids) {
      if (seen.has(id)) return `${id} came twice`;
      seen.add(id);
    }
    pageToken = answer.nextPageToken;
    if (pageToken === "") return seen.size > 0 ? "to its end" : "without anything";
  }
  return "without an end";
}

function itemsOf(output: DescMessage, answer: Message): string[] {
  const list = output.fields.find(({ fieldKind }) => fieldKind === "list");
  const items = Reflect.get(answer, list?.localName ?? "") as unknown[];
  return items.map((item) => {
    if (typeof item === "string") return item;
    const [first] = textsIn(list?.message ?? UserSchema, item as Message);
    return first?.[1] ?? "";
  });
}
