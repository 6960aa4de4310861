import { execFile } from "node:child_process";
import { once } from "node:events";
import { createServer } from "node:net";
import { join } from "node:path";
import { promisify } from "node:util";
import { expect, test } from "vitest";
import { claimPort } from "#src/dev/ports.ts";

const PORTS = join(import.meta.dirname, "../../src/dev/ports.ts");

/** What another process gets that would like this port; it has ended when this resolves. */
async function claimedElsewhere(preferred: number): Promise<number> {
  const script = `const { claimPort } = await import(${JSON.stringify(PORTS)});
    console.log((await claimPort(${preferred})).port)`;
  const { stdout } = await promisify(execFile)(process.execPath, ["--input-type=module", "-e", script]);
  return Number(stdout);
}

test("a port that is claimed is given to nobody else, listened on or not, until it is let go", async () => {
  const { port, [Symbol.dispose]: letGo } = await claimPort();
  expect(await claimedElsewhere(port)).not.toBe(port);
  using other = await claimPort(port);
  expect(other.port).not.toBe(port);

  letGo();
  expect(await claimedElsewhere(port)).toBe(port);
  using again = await claimPort(port);
  expect(again.port).toBe(port);
});

test("a claimed port can be listened on, and what is listened on cannot be claimed", async () => {
  const { port, [Symbol.dispose]: letGo } = await claimPort();
  const server = createServer().listen(port, "127.0.0.1");
  await once(server, "listening");
  letGo();

  using other = await claimPort(port);
  expect(other.port).not.toBe(port);
  server.close();
  await once(server, "close");
});
