import type { Browser } from "playwright-core";
import type { Asked } from "./told.ts";
import { type ToldLog, toldLog } from "./told-log.ts";

/** A tab that can be covered by another one. */
export type CoveredTab = AsyncDisposable &
  ToldLog & {
    follow(asked: Asked): Promise<void>;
    /** Puts another tab in front: the page is hidden. */
    cover(): Promise<void>;
    uncover(): Promise<void>;
    /** Stops its scripts and timers, as browsers do with tabs that are hidden for long. */
    freeze(): Promise<void>;
    thaw(): Promise<void>;
  };

/**
 * Opens the page in a window of its own. Playwright makes every page of its own believe that it is in front, so this one
 * is made and driven past it, by the DevTools protocol.
 */
export async function openCoveredTab(browser: Browser, origin: string): Promise<CoveredTab> {
  const devtools = await browser.newBrowserCDPSession();
  const { browserContextId } = await devtools.send("Target.createBrowserContext");
  const { targetId } = await devtools.send("Target.createTarget", { url: "about:blank", browserContextId });
  const { sessionId } = await devtools.send("Target.attachToTarget", { targetId });
  const log = toldLog();
  const answers = new Map<number, { resolve(result: unknown): void; reject(why: Error): void }>();
  const loaded = Promise.withResolvers<void>();
  devtools.on("Target.receivedMessageFromTarget", ({ message }) => {
    const { id, method, params, result, error } = JSON.parse(message);
    if (method === "Runtime.bindingCalled") log.hear(params.payload);
    if (method === "Page.loadEventFired") loaded.resolve();
    const answer = answers.get(id);
    answers.delete(id);
    if (error === undefined) answer?.resolve(result);
    else answer?.reject(new Error(error.message));
  });
  let sent = 0;
  const ask = (method: string, params: object = {}) =>
    new Promise<unknown>((resolve, reject) => {
      const id = ++sent;
      answers.set(id, { resolve, reject });
      const message = JSON.stringify({ id, method, params });
      devtools.send("Target.sendMessageToTarget", { sessionId, message }).catch(reject);
    });
  for (const domain of ["Runtime", "Page"]) await ask(`${domain}.enable`);
  await ask("Runtime.addBinding", { name: "tell" });
  await ask("Page.navigate", { url: origin });
  await loaded.promise;
  return {
    ...log,
    follow: async (asked) =>
      void (await ask("Runtime.evaluate", { expression: `void follow(${JSON.stringify(asked)})` })),
    async cover() {
      await devtools.send("Target.createTarget", { url: "about:blank", browserContextId });
      await log.next("page hidden");
    },
    async uncover() {
      await devtools.send("Target.activateTarget", { targetId });
      await log.next("page visible");
    },
    /** Chromium acts on it a moment after it has answered: the page itself says when. */
    async freeze() {
      await ask("Page.setWebLifecycleState", { state: "frozen" });
      await log.next("page frozen");
    },
    thaw: async () => void (await ask("Page.setWebLifecycleState", { state: "active" })),
    async [Symbol.asyncDispose]() {
      await devtools.send("Target.disposeBrowserContext", { browserContextId });
      await devtools.detach();
    },
  };
}
