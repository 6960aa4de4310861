// Connect-Web in a real Chromium, against Posthorn in processes of their own: plain HTTP/1.1, and HTTP/2 under TLS.
import { createHash, X509Certificate } from "node:crypto";
import { readFileSync } from "node:fs";
import type { Browser, BrowserContext } from "playwright-core";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, onTestFinished, test, vi } from "vitest";
import { Code } from "#src/errors.ts";
import { startProxy } from "../fault/lab/proxy.ts";
import { certificates } from "../rpc/certificates.ts";
import { startTestPlatform, type TestPlatform } from "../support/platform.ts";
import { testServices } from "../support/services.ts";
import { findChromium, launch } from "./chromium.ts";
import { openCoveredTab } from "./covered-tab.ts";
import { type PosthornProcess, startPosthorn } from "./posthorn-process.ts";
import { bundledPage, type Site, serveSite } from "./site.ts";
import { openTab } from "./tab.ts";

const services = await testServices();
const chromium = await findChromium();
if (chromium === undefined || certificates === undefined) {
  // Its name is what the list of skipped tests says.
  test.skip(chromium === undefined ? "chromium" : "chromium: openssl", () => undefined);
} else {
  inChromium(chromium, certificates.server);
}

type Server = { posthorn: PosthornProcess; baseUrl: string };

// A busy machine takes a while to start a browser and two servers, and all of it to start one of them again.
vi.setConfig({ testTimeout: 90_000 });

function inChromium(chrome: Parameters<typeof launch>[0], tls: { cert: string; key: string }) {
  const cleanUp = new AsyncDisposableStack();
  afterAll(() => cleanUp.disposeAsync());
  let sender: TestPlatform;
  let plain: Server;
  let secure: Server;
  let site: Site;
  let stranger: Site;
  let browser: Browser;
  let context: BrowserContext;

  beforeAll(async () => {
    const [script, started] = await Promise.all([bundledPage(), launch(chrome, [publicKeyHash(tls.cert)])]);
    browser = started;
    cleanUp.defer(() => browser.close());
    site = cleanUp.use(await serveSite(script));
    stranger = cleanUp.use(await serveSite(script));
    const shared = { POSTHORN_ENCRYPTION_KEY: Buffer.from("0123456789abcdefghijklmnopqrstuv").toString("base64") };
    // It goes on sending and deciding while the servers of the streams are dead.
    sender = cleanUp.use(await startTestPlatform({ services, env: shared, roles: ["api", "worker", "scheduler"] }));
    const env = {
      ...shared,
      POSTHORN_ENV: "staging",
      POSTHORN_ROLES: "api,stream",
      POSTHORN_OPERATOR_KEYS: "0f8e7d6c5b4a39281706f5e4d3c2b1a0",
      POSTHORN_DATABASE_URL: services.databaseUrl,
      POSTHORN_NATS_URL: services.natsUrl,
      POSTHORN_REDIS_URL: services.redisUrl,
      POSTHORN_NAMESPACE: services.namespace,
      POSTHORN_GRPC_HOST: "127.0.0.1",
      POSTHORN_HTTP_HOST: "127.0.0.1",
      POSTHORN_HTTP_CORS_ORIGINS: site.origin,
      POSTHORN_LOG_LEVEL: "error",
    };
    const withTls = { ...env, POSTHORN_HTTP_TLS_CERT_FILE: tls.cert, POSTHORN_HTTP_TLS_KEY_FILE: tls.key };
    const [one, two] = await Promise.all([startPosthorn(env), startPosthorn(withTls)]);
    plain = { posthorn: cleanUp.use(one), baseUrl: `http://127.0.0.1:${one.httpPort}` };
    secure = { posthorn: cleanUp.use(two), baseUrl: `https://localhost:${two.httpPort}` };
  }, 180_000);

  beforeEach(async () => {
    context = await browser.newContext();
  });
  afterEach(() => context.close());

  const serverOf = (name: "plain" | "secure") => (name === "plain" ? plain : secure);
  let users = 0;
  async function newUser() {
    const userId = `user-${++users}`;
    const { token } = await sender.key.admin.createUserToken({ userId });
    const to = { userIds: [userId] };
    let sent = 0;
    return {
      token,
      /** Sends so many, one after the other, so that they have an order. Returns the last one's title. */
      async send(many: number): Promise<string> {
        for (let i = 0; i < many; i++) {
          const content = { title: `${++sent}` };
          await sender.key.send.send({ to, content, waitForDecision: { seconds: 10n } });
        }
        return `${sent}`;
      },
      titles: () => Array.from({ length: sent }, (_, i) => `${i + 1}`),
    };
  }

  describe.each([
    ["HTTP/1.1", "plain", "connect json", "http/1.1"],
    ["HTTP/2 with TLS", "secure", "connect binary", "h2"],
  ] as const)("chromium over %s", (_, which, protocol, spoken) => {
    test("a page receives, and resumes when its server is killed and started again: nothing lost, nothing twice", async () => {
      const { posthorn, baseUrl } = serverOf(which);
      const user = await newUser();
      const tab = await openTab(context, site.origin);
      await tab.follow({ baseUrl, protocol, token: user.token });
      await tab.next("caughtUp");
      await tab.titled(await user.send(5));
      await Promise.all([user.send(10), posthorn.kill().then(() => tab.next("cut"))]);
      await user.send(5);
      let resumed = false;
      const resuming = posthorn.start().then(() => tab.next("caughtUp"));
      const sending = async () => {
        while (!resumed) await user.send(1);
      };
      await Promise.all([resuming.finally(() => (resumed = true)), sending()]);
      await tab.titled(await user.send(5));
      const notifications = tab.all("notification");
      expect(tab.titles()).toEqual(user.titles());
      expect(notifications.map(({ sequence }) => sequence)).toEqual(user.titles().map(Number));
      expect(notifications.filter(({ replayed }) => replayed).length).toBeGreaterThanOrEqual(5);
      expect([...tab.protocols]).toEqual([spoken]);
    });

    test("a page that was offline goes on where it was as soon as it is online", async () => {
      const { proxied, cut, mend } = await throughProxy(serverOf(which));
      const user = await newUser();
      const tab = await openTab(context, site.origin);
      await tab.follow({ baseUrl: proxied, protocol, token: user.token });
      await tab.next("caughtUp");
      await tab.titled(await user.send(2));
      // The browser refuses new requests while it is offline; those that are open end with their connections.
      await context.setOffline(true);
      await cut();
      await tab.next("page offline");
      await tab.next("cut");
      await tab.next("cut");
      await user.send(3);
      await mend();
      await context.setOffline(false);
      await tab.next("page online");
      await tab.next("caughtUp");
      await tab.titled(await user.send(2));
      expect(tab.titles()).toEqual(user.titles());
      expect(tab.all("notification").filter(({ replayed }) => replayed)).toHaveLength(3);
    });

    test("a page that is hidden goes on receiving, and one that was frozen besides hears nothing and has missed nothing", async () => {
      const { proxied, cut, mend } = await throughProxy(serverOf(which));
      const user = await newUser();
      const asked = { baseUrl: proxied, protocol, token: user.token };
      await using tab = await openCoveredTab(browser, site.origin);
      await tab.follow(asked);
      await tab.next("caughtUp");
      await tab.cover();
      await tab.titled(await user.send(2));
      const beside = await openTab(context, site.origin);
      await beside.follow(asked);
      await beside.next("caughtUp");
      await tab.freeze();
      const heard = tab.told.length;
      await cut();
      await mend();
      await beside.next("cut");
      await beside.next("caughtUp");
      await beside.titled(await user.send(3));
      expect(tab.told.slice(heard)).toEqual([]);
      await tab.thaw();
      await tab.uncover();
      await tab.next("caughtUp");
      await tab.titled(await user.send(2));
      expect(tab.titles()).toEqual(user.titles());
    });
  });

  describe.each(["connect json", "connect binary", "grpc-web"] as const)("chromium, %s", (protocol) => {
    test("a page of a configured origin sees all of an answer and of a refusal, one of another origin nothing", async () => {
      const { token } = await newUser();
      const asked = { baseUrl: plain.baseUrl, token, protocol };
      const own = await openTab(context, site.origin);
      expect(await own.count(asked)).toEqual({ counts: { counts: {} } });
      expect(await own.count({ ...asked, token: "forged" })).toEqual({
        code: Code.UNAUTHENTICATED,
        message: "The credential is not valid.",
        reason: "CREDENTIAL_INVALID",
      });
      const foreign = await openTab(context, stranger.origin);
      expect(await foreign.count(asked)).toMatchObject({ reason: undefined, message: "Failed to fetch" });
      await foreign.follow(asked);
      await foreign.next("cut");
      expect(foreign.told.filter(({ kind }) => kind !== "cut")).toEqual([]);
    });
  });

  test("chromium holds six HTTP/1.1 streams, and a seventh waits until one of them ends", async () => {
    const user = await newUser();
    const asked = { baseUrl: plain.baseUrl, token: user.token, protocol: "connect json" } as const;
    const tabs = await Promise.all(Array.from({ length: 6 }, () => openTab(context, site.origin)));
    for (const tab of tabs) await tab.follow(asked);
    await Promise.all(tabs.map((tab) => tab.next("caughtUp")));
    const seventh = await openTab(context, site.origin);
    await seventh.follow(asked);
    const title = await user.send(1);
    await Promise.all(tabs.map((tab) => tab.titled(title)));
    expect(seventh.told).toEqual([]);
    await tabs[0]?.page.close();
    await seventh.next("caughtUp");
  });

  test("chromium holds ten HTTP/2 streams over one connection, and a call beside them", async () => {
    const user = await newUser();
    const asked = { baseUrl: secure.baseUrl, token: user.token, protocol: "connect binary" } as const;
    const tabs = await Promise.all(Array.from({ length: 10 }, () => openTab(context, site.origin)));
    for (const tab of tabs) await tab.follow(asked);
    await Promise.all(tabs.map((tab) => tab.next("caughtUp")));
    await user.send(3);
    await Promise.all(tabs.map((tab) => tab.titled("3")));
    for (const tab of tabs) expect(tab.titles()).toEqual(["1", "2", "3"]);
    expect(await tabs[0]?.count(asked)).toEqual({ counts: { counts: { unread: 3, unseen: 3, total: 3 } } });
    expect(new Set(tabs.flatMap(({ connections }) => [...connections])).size).toBe(1);
  });
}

/** The same server behind a network that can be cut. */
async function throughProxy({ baseUrl }: Server) {
  const proxy = await startProxy(baseUrl);
  onTestFinished(() => proxy[Symbol.asyncDispose]());
  const proxied = new URL(baseUrl);
  proxied.port = new URL(proxy.url).port;
  const cut = async () => {
    await proxy.refuse("close");
    proxy.cut("rst");
  };
  return { proxied: proxied.origin, cut, mend: () => proxy.heal() };
}

/** As Chromium's list of trusted keys has them. */
function publicKeyHash(certFile: string): string {
  const key = new X509Certificate(readFileSync(certFile)).publicKey.export({ type: "spki", format: "der" });
  return createHash("sha256").update(key).digest("base64");
}
