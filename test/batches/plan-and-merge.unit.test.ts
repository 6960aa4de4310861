import { create, toBinary } from "@bufbuild/protobuf";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { ContentSchema, Priority } from "#gen/posthorn/v1/notification_pb.ts";
import { BatchWordingSchema } from "#gen/posthorn/v1/type_service_pb.ts";
import { mergeBatch, mergeDigest, type Part } from "#src/batches/merge.ts";
import { batchPlan } from "#src/batches/plan.ts";
import { wordsIn } from "#src/batches/wording.ts";
import { createViolations } from "#src/rpc/validate.ts";

const MINUTE = 60_000;
const now = new Date("2026-11-27T12:00:00Z");
const item = { type: "t", priority: Priority.NORMAL, channels: [1], since: undefined };
const rule = { maxSize: 0, windowMs: undefined, leading: false, sliding: false, maxWindowMs: undefined };
const own = { maxSize: 5, windowMs: 30 * MINUTE };
const minutes = (at: Date | undefined) => (at === undefined ? undefined : (at.getTime() - now.getTime()) / MINUTE);

describe("the plan of a batch", () => {
  test("takes the stricter of the type's rule and the user's", () => {
    const plan = batchPlan(item, { ...rule, maxSize: 3, windowMs: 60 * MINUTE }, own, now);
    expect([plan?.maxSize, minutes(plan?.flushAt)]).toEqual([3, 30]);
    const other = batchPlan(item, { ...rule, maxSize: 20, windowMs: MINUTE }, own, now);
    expect([other?.maxSize, minutes(other?.flushAt)]).toEqual([5, 1]);
    expect(batchPlan(item, rule, { ...own, maxSize: 1 }, now)).toBeUndefined();
  });

  test("slides four windows far, if the type does not say how far, and never less than one", () => {
    const far = (maxWindowMs?: number) =>
      minutes(batchPlan(item, { ...rule, sliding: true, maxWindowMs }, own, now)?.latestFlushAt);
    expect([far(), far(45 * MINUTE), far(MINUTE)]).toEqual([120, 45, 30]);
  });

  test("goes on with the window of one that was batched before, which leads no more", () => {
    const since = (ms: number) =>
      batchPlan({ ...item, since: new Date(now.getTime() + ms) }, { ...rule, leading: true }, own, now);
    expect([-10 * MINUTE, -60 * MINUTE, 5 * MINUTE].map((ms) => minutes(since(ms)?.flushAt))).toEqual([20, 0, 30]);
    expect(since(-MINUTE)?.leading).toBe(false);
    expect(batchPlan(item, { ...rule, leading: true }, own, now)?.leading).toBe(true);
  });
});

const part = (title: string, more: Partial<Part> = {}): Part => ({
  id: "01980000-0000-7000-8000-000000000000",
  priority: Priority.NORMAL,
  category: "c",
  channels: 2,
  content: toBinary(ContentSchema, create(ContentSchema, { title, url: "/a" })),
  tags: null,
  senderId: null,
  bypassLimits: false,
  expiresAt: null,
  ...more,
});
const type = { key: "t", displayName: "" };

describe("what several become", () => {
  test("keeps what all have, the highest priority and the last expiry", () => {
    const [early, late] = [new Date(1), new Date(2)];
    const merged = mergeBatch(
      "b",
      [
        part("a", { tags: ["x", "y"], senderId: "s", expiresAt: early, priority: Priority.HIGH, bypassLimits: true }),
        part("b", { tags: ["y"], senderId: "s", expiresAt: late }),
      ],
      type,
      create(BatchWordingSchema, { tag: "t", title: "{count} of {count}" }),
    );
    expect(merged).toMatchObject({
      tags: ["t", "y"],
      senderId: "s",
      expiresAt: late,
      priority: Priority.HIGH,
      bypassLimits: false,
      content: { title: "2 of 2", body: "a\nb", url: "/a" },
    });
    const { expiresAt, senderId } = mergeBatch(
      "b",
      [part("a", { expiresAt: late }), part("b", { senderId: "s" })],
      type,
      undefined,
    );
    expect([expiresAt, senderId]).toEqual([null, null]);
  });

  test("is content that the contract allows, whatever its members say", () => {
    const violations = createViolations();
    const title = fc
      .string({ unit: "grapheme", minLength: 1, maxLength: 60 })
      .map((text) => [...text].slice(0, 255).join(""));
    const parts = fc.array(
      fc.tuple(title, fc.constantFrom("a", "b", "c")).map(([text, category]) => part(text, { category })),
      { minLength: 2, maxLength: 120 },
    );
    const text = (maxLength: number) =>
      fc.oneof(fc.string({ maxLength }), fc.constantFrom("", "{list}", "{list}{list}", "{count}", "{more}", "$&"));
    const wording = fc.record({ title: text(200), body: text(2000), more: text(200) });
    fc.assert(
      fc.property(parts, fc.option(wording, { nil: undefined }), (members, said) => {
        const words = said && create(BatchWordingSchema, said);
        for (const { content } of [mergeBatch("b", members, type, words), mergeDigest("b", members, words)])
          expect(violations(ContentSchema, content)).toEqual([]);
      }),
    );
  });

  test("says what the tenant says, and nothing of its own where the tenant has said all", () => {
    const words = create(BatchWordingSchema, {
      title: "{count} neue",
      body: "Neu:\n{list}\n{list}",
      more: "noch {more}",
    });
    const members = Array.from({ length: 12 }, (_, n) => part(`{count} {list} ${n}`));
    const shown = (most: number, mark: string) =>
      Array.from({ length: most }, (_, n) => `${mark}{count} {list} ${n}`).join("\n");
    const { content } = mergeBatch("b", members, type, words);
    expect(content.title).toBe("12 neue");
    expect(content.body).toBe(`Neu:\n${shown(10, "")}\nnoch 2\n{list}`);
    const digest = mergeDigest("b", members, words).content;
    expect(digest.title).toBe("12 neue");
    expect(digest.body).toBe(`Neu:\nc (12)\n${shown(5, "– ")}\n– noch 7\n{list}`);
    expect(mergeDigest("b", members, undefined).content).toMatchObject({
      title: "12 notifications",
      body: expect.stringContaining("– and 7 more"),
    });
  });
});

describe("the wording in a language", () => {
  const wording = create(BatchWordingSchema, {
    title: "{count} new",
    more: "{more} more",
    icon: "/i.png",
    tag: "t",
    url: "/u",
    translations: {
      de: { title: "{count} neue", more: "noch {more}" },
      "pt-BR": { title: "{count} novas" },
      "zh-Hant": { title: "{count} 則" },
    },
  });
  test.each([
    ["de", "{count} neue"],
    ["de-AT", "{count} neue"],
    ["DE-at-1996", "{count} neue"],
    ["pt-br", "{count} novas"],
    ["pt", "{count} new"],
    ["zh-Hant-TW", "{count} 則"],
    ["zh-Hant-x-private", "{count} 則"],
    ["zh", "{count} new"],
    ["d", "{count} new"],
    ["", "{count} new"],
  ])("for %j is the closest there is", (language, title) => {
    expect(wordsIn(wording, language).title).toBe(title);
  });

  test("has what it leaves empty from the one without a language", () => {
    expect(wordsIn(wording, "pt-BR")).toEqual({
      title: "{count} novas",
      body: "",
      more: "{more} more",
      icon: "/i.png",
      tag: "t",
      url: "/u",
    });
  });
});
