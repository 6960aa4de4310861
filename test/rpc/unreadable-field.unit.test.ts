import { create, toBinary } from "@bufbuild/protobuf";
import { BinaryWriter, WireType } from "@bufbuild/protobuf/wire";
import { describe, expect, test } from "vitest";
import { UpdatePreferencesRequestSchema } from "#gen/posthorn/v1/preferences_service_pb.ts";
import { SendBatchRequestSchema, SendRequestSchema } from "#gen/posthorn/v1/send_service_pb.ts";
import { unreadableField } from "#src/rpc/unreadable-field.ts";

describe("the field of JSON that cannot be read", () => {
  const inSend = (json: string) => unreadableField(SendRequestSchema, Buffer.from(json), "json");

  test.each([
    ['{"priority":"URGENT"}', "priority"],
    ['{"to":{"userIds":["a",7]}}', "to.user_ids[1]"],
    ['{"to":{"user_ids":"a"}}', "to.user_ids"],
    ['{"content":{"title":"x","actions":[{},{"label":[]}]}}', "content.actions[1].label"],
    ['{"ttl":"soon"}', "ttl"],
    ['{"dedupWindow":{}}', "dedup_window"],
    ['{"scheduleTime":1e400}', "schedule_time"],
    ['{"content":{"body":"x","colour":"red"}}', "content.colour"],
    ['{"content":{"<b>":1}}', "content"],
    ['{"waitForDecision":{"seconds":1}}', "wait_for_decision"],
    ['{"ttl":"5s","expireTime":"2030-01-01T00:00:00Z"}', "expire_time"],
    ['{"to":{"userIds":["a"],"user_ids":["b"]}}', "to.user_ids"],
    ['{"ttl":"5s","priority":"PRIORITY_LOW","ttl":"5s"}', "ttl"],
    ['{"to":{"userIds":["a"]},"to":{"userIds":["b"]}}', "to"],
    ['{"content":{"body":"x","b\\u006fdy":"\\"{"}}', "content.body"],
    ['{"content":{"title":"[\\\\","actions":[{"id":"a"},{"id":"b","label":"c","id":"b"}]}}', "content.actions[1].id"],
    ['{"content":{"title":"x","data":{"a":[{"b":1,"b":1}]}}}', "content.data"],
  ])("in %s is %s", (json, field) => {
    expect(inSend(json)).toBe(field);
  });

  test.each(["", "{", "[]", '[{"to":{},"to":{}}]', "null", '{"content":', "\ufffe"])(
    "in %j is none: it is no request at all",
    (json) => {
      expect(inSend(json)).toBe("");
    },
  );

  test("in a map is the map", () => {
    const json = Buffer.from('{"preferences":{"types":{"a":{"enabled":"no"}}}}');
    expect(unreadableField(UpdatePreferencesRequestSchema, json, "json")).toBe("preferences.types");
    const twice = Buffer.from('{"preferences":{"types":{"a":{},"b":{},"a":{}}}}');
    expect(unreadableField(UpdatePreferencesRequestSchema, twice, "json")).toBe("preferences.types");
  });
});

describe("the field of bytes that cannot be read", () => {
  const latin1 = Buffer.from([0x66, 0xfc, 0x72]);

  test("is named down into lists of messages", () => {
    const content = new BinaryWriter().tag(1, WireType.LengthDelimited).bytes(latin1).finish();
    const item = new BinaryWriter().tag(3, WireType.LengthDelimited).bytes(content).finish();
    const good = create(SendRequestSchema, { to: { userIds: ["a"] } });
    const bytes = Buffer.concat([
      toBinary(SendBatchRequestSchema, create(SendBatchRequestSchema, { items: [good, good] })),
      new BinaryWriter().tag(1, WireType.LengthDelimited).bytes(item).finish(),
    ]);
    expect(unreadableField(SendBatchRequestSchema, bytes, "binary")).toBe("items[2].content.title");
  });

  test("is named where its wire type is another", () => {
    const bytes = new BinaryWriter().tag(14, WireType.Bit32).fixed32(1).finish();
    expect(unreadableField(SendRequestSchema, bytes, "binary")).toBe("collapse_key");
  });

  test.each(["07", "0a", "0affffffff0f61", "fb7f", "ffffffffffffffffffffff", "0001"])(
    "in %s is none or its first",
    (hex) => {
      expect(["", "to"]).toContain(unreadableField(SendRequestSchema, Buffer.from(hex, "hex"), "binary"));
    },
  );
});
