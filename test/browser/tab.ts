import type { BrowserContext, Page } from "playwright-core";
import type { Asked, Counted } from "./told.ts";
import { type ToldLog, toldLog } from "./told-log.ts";

/** A tab with the page in it. */
export type Tab = ToldLog & {
  readonly page: Page;
  /** By which protocols its calls were answered, as the browser names them: `http/1.1`, `h2`. */
  readonly protocols: ReadonlySet<string>;
  /** The browser's numbers of the connections they came over. */
  readonly connections: ReadonlySet<number>;
  /** Begins to follow the stream; returns at once. */
  follow(asked: Asked): Promise<void>;
  count(asked: Asked): Promise<Counted>;
};

/** Opens the page of this origin in a new tab. */
export async function openTab(context: BrowserContext, origin: string): Promise<Tab> {
  const page = await context.newPage();
  const log = toldLog();
  await page.exposeFunction("tell", log.hear);
  const protocols = new Set<string>();
  const connections = new Set<number>();
  const devtools = await context.newCDPSession(page);
  devtools.on("Network.responseReceived", ({ response, type }) => {
    if (!response.url.includes("/posthorn.v1.") || type === "Preflight") return;
    protocols.add(response.protocol ?? "unknown");
    connections.add(response.connectionId);
  });
  await devtools.send("Network.enable");
  await page.goto(origin);
  return {
    ...log,
    page,
    protocols,
    connections,
    follow: (asked) => page.evaluate((value) => void Reflect.get(globalThis, "follow")(value), asked),
    count: (asked) => page.evaluate((value) => Reflect.get(globalThis, "count")(value), asked),
  };
}
