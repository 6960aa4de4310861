import { mkdtemp, readdir, readFile, rm, stat } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { create } from "@bufbuild/protobuf";
import { expect, onTestFinished, test } from "vitest";
import { Channel, ContentSchema, Priority } from "#gen/posthorn/v1/notification_pb.ts";
import { sinkChannels } from "#src/channels/sink.ts";

test("what the sink keeps is for its own user alone to read", async () => {
  const parent = await mkdtemp(join(tmpdir(), "posthorn-sink-"));
  onTestFinished(() => rm(parent, { recursive: true, force: true }));
  const folder = join(parent, "all/sunk");
  const channels = sinkChannels(folder);
  const message = {
    ...{ idempotencyKey: "n:1:2", tenantId: "t", notificationId: "n", userId: "ada", step: 1, type: "alert" },
    ...{ priority: Priority.HIGH, content: create(ContentSchema, { title: "Fire" }), at: new Date(0) },
  };
  for (const channel of [Channel.EMAIL, Channel.SMS])
    for (let times = 0; times < 2; times++)
      await channels.get(channel)?.deliver({ ...message, channel }, new AbortController().signal);

  const modeOf = async (path: string) => ((await stat(path)).mode & 0o777).toString(8);
  expect(await modeOf(folder)).toBe("700");
  expect((await readdir(folder)).toSorted()).toEqual(["email.jsonl", "sms.jsonl"]);
  for (const name of await readdir(folder)) {
    expect([name, await modeOf(join(folder, name))]).toEqual([name, "600"]);
    const lines = (await readFile(join(folder, name), "utf8")).trimEnd().split("\n");
    expect(lines.map((line) => JSON.parse(line).content)).toEqual([{ title: "Fire" }, { title: "Fire" }]);
  }
});
