import { toBinary } from "@bufbuild/protobuf";
import { timestampDate } from "@bufbuild/protobuf/wkt";
import { expect, test } from "vitest";
import { Priority, Status } from "#gen/posthorn/v1/notification_pb.ts";
import { Digest_Mode as Mode } from "#gen/posthorn/v1/preferences_service_pb.ts";
import { ListTypesResponseSchema } from "#gen/posthorn/v1/type_service_pb.ts";
import { platformOfFile } from "../support/platform.ts";
import { refusalOf } from "../support/refusal.ts";
import { until } from "../support/until.ts";
import { batching, HOUR, MINUTE } from "./setup.ts";

// How several that have become one read, in the recipient's language.
let nowMs = Math.ceil(Date.now() / HOUR) * HOUR;
const node = await platformOfFile({ clock: () => new Date(nowMs) });
const { key } = node;
const { newType, newUser, send, reached, entries, prefer } = batching(node);
/** Of what has come last to the user. */
const said = async (userId: string) => {
  const [entry] = await entries(userId);
  return [entry?.content?.title, entry?.content?.body];
};

test("a batch reads as its type says in the language its recipient has when it closes", async () => {
  const batchWording = {
    title: "{count} habits",
    body: "Time for:\n{list}",
    translations: {
      de: { title: "{count} Gewohnheiten", body: "Zeit für:\n{list}" },
      fr: { title: "{count} habitudes" },
    },
  };
  const type = await newType({ batchable: true, maxSize: 2 }, { batchWording });
  const expected: [language: string, title: string, body: string][] = [
    ["de-AT", "2 Gewohnheiten", "Zeit für:\na\nb"],
    ["fr", "2 habitudes", "Time for:\na\nb"],
    ["pl", "2 habits", "Time for:\na\nb"],
  ];
  for (const [language, ...words] of expected) {
    const user = newUser();
    await send(user, type, "a");
    await prefer(user, { language });
    const { notificationId } = await send(user, type, "b");
    await reached(notificationId, Status.DELIVERED);
    expect(await said(user)).toEqual(words);
  }
  // The profile says it where preferences do not.
  const user = newUser();
  await key.users.upsertUser({ user: { id: user, locale: "de" } });
  await send(user, type, "a");
  await reached((await send(user, type, "b")).notificationId, Status.DELIVERED);
  expect(await said(user)).toEqual(["2 Gewohnheiten", "Zeit für:\na\nb"]);
});

test("a digest reads as the tenant's type of that name says, and in English without one", async () => {
  const type = await newType(undefined, { category: "tasks" });
  const user = newUser();
  await prefer(user, { language: "de", digest: { mode: Mode.HOURLY } });
  const digest = async () => {
    const members = [await send(user, type, "a"), await send(user, type, "b")];
    nowMs += HOUR;
    for (const { notificationId } of members) await reached(notificationId, Status.DELIVERED);
    return await said(user);
  };
  expect(await digest()).toEqual(["2 notifications", "tasks (2)\n– a\n– b"]);
  await key.types.createType({
    type: {
      key: "digest",
      batchWording: { translations: { de: { title: "{count} auf einmal", body: "Hallo!\n{list}" } } },
    },
  });
  expect(await digest()).toEqual(["2 auf einmal", "Hallo!\ntasks (2)\n– a\n– b"]);
  await key.types.deleteType({ key: "digest" });
  expect(await digest()).toEqual(["2 notifications", "tasks (2)\n– a\n– b"]);
});

test("a digest that waits for room under the cap comes though its tenant deletes the type that worded it", async () => {
  const type = await newType(undefined);
  const user = newUser();
  const time = `${new Date(nowMs).toISOString().slice(11, 13)}:30`;
  await prefer(user, { digest: { mode: Mode.DAILY, time }, hourlyCap: { enabled: true, maxPerHour: 1 } });
  await key.types.createType({ type: { key: "digest" } });
  const members = [await send(user, type, "a"), await send(user, type, "b")];
  await send(user, type, "the only one of this hour", { priority: Priority.CRITICAL });
  nowMs += 30 * MINUTE;
  const turn = await until(
    async () => {
      const { batch } = await key.batches.getBatch({ id: members[0]?.batchId ?? "" });
      return batch?.flushTime === undefined ? 0 : timestampDate(batch.flushTime).getTime();
    },
    (flush) => flush > nowMs,
  );
  await key.types.deleteType({ key: "digest" });
  nowMs = turn;
  for (const { notificationId } of members) await reached(notificationId, Status.DELIVERED);
});

test("a wording is refused where it has too many languages, none, or too much to say", async () => {
  const refused = async (translations: Record<string, { title?: string; body?: string; more?: string }>) =>
    (await refusalOf(key.types.createType({ type: { key: "wordy", batchWording: { translations } } }))).fields;
  const many = (count: number, body: string) =>
    Object.fromEntries(Array.from({ length: count }, (_, n) => [`de-${1000 + n}`, { body }]));
  expect(await refused(many(21, ""))).toEqual(["type.batch_wording.translations"]);
  expect(await refused({ "no language": {} })).toEqual(['type.batch_wording.translations["no language"]']);
  expect(await refused({ de: { more: "m".repeat(201) } })).toEqual(['type.batch_wording.translations["de"].more']);
  expect(await refused({ de: { title: "\0" } })).toEqual(['type.batch_wording.translations["de"].title']);
  expect(await refused(many(20, "b".repeat(2000)))).toEqual(["type.batch_wording"]);
});

test("types whose wordings are long come in pages that a client can take", async () => {
  const body = "b".repeat(2000);
  const translations = Object.fromEntries(Array.from({ length: 15 }, (_, n) => [`de-${1000 + n}`, { body }]));
  const made = Array.from({ length: 40 }, (_, n) => `long_${n}`);
  for (const name of made)
    await key.types.createType({ type: { key: name, category: "long", batchWording: { translations } } });
  const sizes: number[] = [];
  const found: string[] = [];
  for (let pageToken = ""; sizes.length === 0 || pageToken !== ""; ) {
    const page = await key.types.listTypes({ category: "long", pageSize: 200, pageToken });
    sizes.push(toBinary(ListTypesResponseSchema, page).byteLength);
    found.push(...page.types.map(({ key }) => key));
    pageToken = page.nextPageToken;
  }
  expect(found).toEqual(made.sort());
  expect(sizes.length).toBeGreaterThan(1);
  expect(Math.max(...sizes)).toBeLessThan(2 ** 21);
});
