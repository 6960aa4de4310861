import { BinaryWriter } from "@bufbuild/protobuf/wire";
import { describe, expect, test, vi } from "vitest";
import { envelope } from "./frames.ts";
import { manyCalls } from "./many-calls.ts";
import { besieged } from "./siege.ts";

/** Attack 26: requests of four megabytes that are within every field's bound, and of two million parts together. */

vi.setConfig({ testTimeout: 180_000 });
const { target, during } = await besieged();
const many = manyCalls(target.apiKey);
const SEND = "/posthorn.v1.SendService/Send";
const SEND_BATCH = "/posthorn.v1.SendService/SendBatch";
const UPDATE_PREFERENCES = "/posthorn.v1.PreferencesService/UpdatePreferences";
const SIZE = 4 * 2 ** 20 - 1024;
const CALLS = 8;

const times = (count: number, ...bytes: number[]) => Buffer.alloc(count * bytes.length, Buffer.from(bytes));
const nested = (number: number, content: Buffer) =>
  Buffer.concat([Buffer.from(new BinaryWriter().tag(number, 2).uint32(content.length).finish()), content]);
/** As often as there is room for. */
const whole = (part: Buffer) => times(Math.floor(SIZE / part.length), ...part);

// A message that is given again is merged with what there is.
const BINARY: [path: string, body: Buffer][] = [
  [SEND, whole(nested(3, times(110, 0x22, 0)))],
  [SEND_BATCH, whole(nested(1, nested(3, times(5_000, 0x22, 0))))],
  [UPDATE_PREFERENCES, whole(nested(2, nested(8, times(200, 0x12, 0))))],
  [SEND, nested(4, times(2_000_000, 1))],
];
/** What makes a decoder read on where a look at the sizes would stop or go elsewhere. */
const MALFORMED: [path: string, body: Buffer][] = BINARY.slice(1, 3).flatMap(([path, body]) => [
  // A tag that is none, at the end.
  [path, Buffer.concat([body, Buffer.alloc(1)])],
  // The first tag says that its message is a number.
  [path, Buffer.concat([Buffer.of((body[0] ?? 0) & 0xf8), body.subarray(1)])],
]);
const actions = Array(5_000).fill("{}").join(",");
const items = Array(Math.floor(SIZE / (actions.length + 30))).fill(`{"content":{"actions":[${actions}]}}`);
const JSON_BODY = Buffer.from(`{"items":[${items.join(",")}]}`);

const TOO_MANY = /more values than can be read at once|no more than/;

/**
 * The allocator keeps some of what the first ones took, of which nothing is in use, and takes a few rounds to have enough;
 * those that follow may not add to it.
 */
async function again(attack: () => Promise<void>, rounds = 1): Promise<void> {
  for (let round = 0; round < rounds; round++) await attack();
  await during(attack);
}

describe.each(target.ports)("on the $name port", (port) => {
  test.each([
    ["within every field's bound", BINARY],
    ["in what is malformed", MALFORMED],
  ])("26: two million parts, %s", async (_, bodies) => {
    await again(async () => {
      for (const [path, body] of bodies) {
        const headers = { ":method": "POST", ":path": path, "content-type": "application/grpc", te: "trailers" };
        for (const { grpcStatus } of await many(port, CALLS, headers, envelope(body))) expect(grpcStatus).toBe("3");
      }
    });
  });
});

test("26: a million values in JSON, within every field's bound", async () => {
  await again(async () => {
    const headers = { ":method": "POST", ":path": SEND_BATCH, "content-type": "application/json" };
    for (const { status, body } of await many(target.http, CALLS, headers, JSON_BODY))
      expect([status, body]).toEqual([400, expect.stringMatching(TOO_MANY)]);
  }, 3);
});
