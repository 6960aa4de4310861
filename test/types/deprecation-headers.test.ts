import { timestampFromDate } from "@bufbuild/protobuf/wkt";
import { createClient, type Transport } from "@connectrpc/connect";
import { createConnectTransport, createGrpcTransport, createGrpcWebTransport } from "@connectrpc/connect-node";
import { expect, test } from "vitest";
import { SendService } from "#gen/posthorn/v1/send_service_pb.ts";
import { platformOfFile } from "../support/platform.ts";

const ORIGIN = "https://app.example";
const node = await platformOfFile({ env: { POSTHORN_HTTP_CORS_ORIGINS: ORIGIN } });
const { key, tenant, platform } = node;
const authorization = `Bearer ${tenant.apiKey}`;
const content = { title: "t" };
const to = { userIds: ["ada"] };
const DAY_MS = 86_400_000;
/** To the second, as the headers say it. */
const inDays = (days: number) => new Date(Math.floor(Date.now() / 1000 + days * 86_400) * 1000);

/** A type that is deprecated since the day of this test, and its headers. */
async function newType(name: string, sunset?: Date) {
  const deprecation = { ...(sunset && { sunsetTime: timestampFromDate(sunset) }) };
  const { type } = await key.types.createType({ type: { key: name, deprecation } });
  const since = type?.deprecation?.deprecateTime;
  return { since, deprecation: `@${since?.seconds}`, sunset: sunset?.toUTCString() ?? null };
}

const { httpUrl, grpcUrl } = platform;
const PROTOCOLS: [string, Transport][] = [
  ["gRPC", createGrpcTransport({ baseUrl: `http://${grpcUrl}` })],
  ["gRPC on the HTTP port", createGrpcTransport({ baseUrl: httpUrl })],
  ["gRPC-Web", createGrpcWebTransport({ baseUrl: httpUrl, httpVersion: "1.1" })],
  ["Connect, JSON", createConnectTransport({ baseUrl: httpUrl, httpVersion: "1.1" })],
  ["Connect, binary", createConnectTransport({ baseUrl: httpUrl, httpVersion: "2", useBinaryFormat: true })],
];

test.each(PROTOCOLS)("%s says in the head of the answer what its warnings say", async (name, transport) => {
  const client = createClient(SendService, transport);
  const told = async (call: "send" | "sendBatch", types: (string | undefined)[]) => {
    const seen: [string | null, string | null][] = [];
    const options = {
      headers: { authorization },
      onHeader: (headers: Headers) => void seen.push([headers.get("deprecation"), headers.get("sunset")]),
    };
    const items = types.map((type) => ({ to, content, ...(type !== undefined && { type }) }));
    if (call === "sendBatch") await client.sendBatch({ items }, options);
    else await client.send(items[0] ?? {}, options);
    expect(seen).toHaveLength(1);
    return seen[0];
  };
  const keyOf = (what: string) => `${what}-${name.replaceAll(/\W/g, "")}`;
  const first = await newType(keyOf("first"), inDays(30));
  const sooner = await newType(keyOf("sooner"), inDays(9));
  const open = await newType(keyOf("open"));
  expect(await told("send", [keyOf("first")])).toEqual([first.deprecation, first.sunset]);
  expect(await told("send", [keyOf("open")])).toEqual([open.deprecation, null]);
  expect(await told("send", [undefined])).toEqual([null, null]);
  // Of one that is there with one that is not, each for itself, and of several the earliest of each.
  const all = [undefined, keyOf("open"), keyOf("sooner"), keyOf("first"), keyOf("none")];
  expect(await told("sendBatch", all)).toEqual([first.deprecation, sooner.sunset]);
  expect(await told("sendBatch", [undefined, keyOf("none")])).toEqual([null, null]);
});

test("pages of other origins may read them", async () => {
  const { deprecation, sunset } = await newType("paged", inDays(3));
  const answer = await fetch(`${httpUrl}/posthorn.v1.SendService/Send`, {
    method: "POST",
    headers: { "content-type": "application/json", authorization, origin: ORIGIN },
    body: JSON.stringify({ to, type: "paged", content }),
  });
  expect([answer.headers.get("deprecation"), answer.headers.get("sunset")]).toEqual([deprecation, sunset]);
  const exposed = answer.headers.get("access-control-expose-headers")?.toLowerCase().split(", ");
  expect(exposed).toEqual(expect.arrayContaining(["deprecation", "sunset"]));
});

test("since when is the server's to say: it stays while the rest changes, and a new deprecation begins anew", async () => {
  const { since } = await newType("since");
  expect(since).toBeDefined();
  const early = timestampFromDate(new Date(Date.now() - 400 * DAY_MS));
  const change = async (deprecation?: object) => {
    const type = { key: "since", ...(deprecation && { deprecation }) };
    const { type: after, changes } = await key.types.updateType({ type, updateMask: { paths: ["deprecation"] } });
    return { since: after?.deprecation?.deprecateTime, changes: changes.map(({ path }) => path) };
  };
  expect(await change({ deprecateTime: early })).toEqual({ since, changes: [] });
  expect(await change({ note: "n" })).toEqual({ since, changes: ["deprecation.note"] });
  expect((await change()).since).toBeUndefined();
  const again = (await change({})).since;
  expect(again).toBeDefined();
  expect(again).not.toEqual(since);
  expect(await key.send.send({ to, type: "since", content })).toMatchObject({ warnings: [{ deprecateTime: again }] });
});
