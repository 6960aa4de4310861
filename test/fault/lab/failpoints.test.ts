import { expect, test } from "vitest";
import { SendService } from "#gen/posthorn/v1/send_service_pb.ts";
import { TopicService } from "#gen/posthorn/v1/topic_service_pb.ts";
import { freshServices } from "../../support/services.ts";
import { connectTo } from "./connection.ts";
import { FAILPOINTS, failpoints } from "./failpoints.ts";
import { nodeHere } from "./here.ts";

test("a node under a little traffic comes to every failpoint", async () => {
  const missed = new Set<string>(FAILPOINTS);
  await using services = await freshServices();
  await using node = await nodeHere("watched", services, { between: failpoints((point) => missed.delete(point)) });
  const { apiKey } = await node.bootstrap();
  using client = connectTo(node.address, apiKey);
  await client.call(TopicService.method.upsertTopic, { topic: { key: "news" } });
  await client.call(TopicService.method.addMembers, { key: "news", userIds: ["ada"] });
  for (const to of [{ userIds: ["ada"] }, { topics: ["news"] }])
    await client.call(SendService.method.send, { to, content: { title: "Hello" } });
  await expect.poll(() => [...missed], { timeout: 30_000 }).toEqual([]);
});
