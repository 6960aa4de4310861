import { createClient } from "@connectrpc/connect";
import { createConnectTransport, createGrpcTransport } from "@connectrpc/connect-node";
import { expect, test, vi } from "vitest";
import { AdminService } from "#gen/posthorn/v1/admin_service_pb.ts";

import { startProxy } from "../fault/lab/proxy.ts";
import { platformOfTest, type TestPlatform } from "../support/platform.ts";
import { freshServices, testServices } from "../support/services.ts";

/** Attack 29: ways around limits. */

vi.setConfig({ testTimeout: 90_000 });
const services = await testServices();
const USER_LIMITS = {
  POSTHORN_USER_BURST: "5",
  POSTHORN_USER_MAX_PER_MINUTE: "8",
  POSTHORN_USER_MAX_PER_HOUR: "8",
  POSTHORN_USER_MAX_PER_DAY: "8",
};

const delivered = async ({ key }: TestPlatform, userId: string) =>
  (await key.inbox.listEntries({ userId, pageSize: 100 })).entries.length;
const to = (userId: string) => ({ to: { userIds: [userId] }, content: { title: "t" } });
const decided = { waitForDecision: { seconds: 10n } };

test("29: calls at once, over both ports, from forged addresses", async () => {
  const BURST = 20;
  const RATE = 10;
  const node = await platformOfTest({
    services,
    env: {
      POSTHORN_API_KEY_REQUESTS_PER_SECOND: String(RATE),
      POSTHORN_API_KEY_BURST: String(BURST),
    },
  });
  const grpcUrl = `http://${node.platform.grpcUrl}`;
  const { httpUrl } = node.platform;
  const transports = [
    ...Array.from({ length: 3 }, () => createGrpcTransport({ baseUrl: grpcUrl })),
    ...Array.from({ length: 3 }, () => createConnectTransport({ baseUrl: httpUrl, httpVersion: "2" })),
    createConnectTransport({ baseUrl: httpUrl, httpVersion: "1.1" }),
  ];
  const began = performance.now();
  const results = await Promise.all(
    Array.from({ length: 200 }, async (_, n) => {
      const address = `10.${n % 256}.0.${(n * 7) % 256}`;
      const headers = {
        authorization: `Bearer ${node.tenant.apiKey}`,
        "x-forwarded-for": address,
        "x-real-ip": address,
        forwarded: `for=${address}`,
        "x-request-id": `r${n}`,
      };
      const admin = createClient(AdminService, transports[n % transports.length]!);
      return admin.whoAmI({}, { headers }).then(
        () => true,
        (error) => {
          expect(String(error)).toMatch(/resource_exhausted/);
          return false;
        },
      );
    }),
  );
  const seconds = (performance.now() - began) / 1000;
  expect(results.filter(Boolean).length).toBeLessThanOrEqual(BURST + Math.ceil(seconds * RATE));
});

test("29: a batch, and many senders on two servers", async () => {
  const a = await platformOfTest({ services, env: USER_LIMITS });
  const b = await platformOfTest({ services, env: USER_LIMITS, tenant: a.tenant });
  const batch = (node: TestPlatform) =>
    node.key.send.sendBatch({ items: Array.from({ length: 30 }, () => to("flooded")) });
  const singles = (node: TestPlatform) =>
    Array.from({ length: 15 }, () => node.key.send.send({ ...to("flooded"), ...decided }));
  await Promise.all([batch(a), batch(b), ...singles(a), ...singles(b)]);
  // All in one burst of ten seconds or, at a boundary, two; the minute allows eight.
  expect(await delivered(a, "flooded")).toBeLessThanOrEqual(8);
  expect(await delivered(a, "flooded")).toBeGreaterThan(0);
});

test("29: while Redis is away", async () => {
  await using own = await freshServices();
  await using proxy = await startProxy(own.redisUrl);
  const node = await platformOfTest({ services: { ...own, redisUrl: proxy.url }, env: USER_LIMITS });
  await proxy.refuse("close");
  proxy.cut("rst");
  await Promise.all(Array.from({ length: 40 }, () => node.key.send.send({ ...to("flooded"), ...decided })));
  const through = await delivered(node, "flooded");
  expect(through).toBeGreaterThan(0);
  expect(through).toBeLessThanOrEqual(8);
});

test("29: when the clock is set back", async () => {
  let offsetMs = 0;
  const node = await platformOfTest({ services, env: USER_LIMITS, clock: () => new Date(Date.now() + offsetMs) });
  const send = () => node.key.send.send({ ...to("flooded"), ...decided });
  await Promise.all(Array.from({ length: 20 }, send));
  for (const back of [-1_000, -50_000]) {
    offsetMs = back;
    await Promise.all(Array.from({ length: 10 }, send));
  }
  expect(await delivered(node, "flooded")).toBeLessThanOrEqual(8);
  // By more than a minute: what was counted is taken for that of a clock that was ahead, and the limits begin anew, once.
  for (let n = 0; n < 2; n++) {
    offsetMs = -3_600_000;
    await Promise.all(Array.from({ length: 10 }, send));
  }
  expect(await delivered(node, "flooded")).toBeLessThanOrEqual(16);
});
